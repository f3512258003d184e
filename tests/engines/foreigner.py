"""PyIceberg as another writer of a project's tables.

    foreigner.py CATALOG WAREHOUSE TABLE append ID...     rows with these ids, every other column null
    foreigner.py CATALOG WAREHOUSE TABLE overwrite ID...  rows with an id of a million and more give way to these
    foreigner.py CATALOG WAREHOUSE TABLE delete FROM TO   rows with FROM <= id < TO go
    foreigner.py CATALOG WAREHOUSE TABLE require COLUMN   the column takes no nulls any more
    foreigner.py CATALOG WAREHOUSE TABLE tag NAME

The catalog is a database's address, sqlite:///…, or a REST catalog's, http://….
"""

import sys

import pyarrow as pa
from pyiceberg.catalog import load_catalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.expressions import And, GreaterThanOrEqual, LessThan


def change(table, action, arguments):
    if action in ("append", "overwrite"):
        schema = table.schema().as_arrow()
        rows = [{name: None for name in schema.names} | {"id": int(id)} for id in arguments]
        rows = pa.Table.from_pylist(rows, schema=schema)
        if action == "append":
            table.append(rows)
        else:
            table.overwrite(rows, overwrite_filter=GreaterThanOrEqual("id", 1_000_000))
    elif action == "delete":
        low, high = map(int, arguments)
        table.delete(And(GreaterThanOrEqual("id", low), LessThan("id", high)))
    elif action == "require":
        with table.update_schema(allow_incompatible_changes=True) as update:
            update.update_column(arguments[0], required=True)
    elif action == "tag":
        table.manage_snapshots().create_tag(table.current_snapshot().snapshot_id, arguments[0]).commit()
    else:
        sys.exit(__doc__)


def main():
    address, warehouse, name, action, *arguments = sys.argv[1:]
    kind = "rest" if address.startswith("http") else "sql"
    catalog = load_catalog("local", type=kind, uri=address, warehouse=f"file://{warehouse}")
    # The table is in use: whoever comes second tries again.
    for attempt in range(20):
        try:
            return change(catalog.load_table(name), action, arguments)
        except CommitFailedException as error:
            failure = error
    sys.exit(f"{action}: {failure}")


main()
