"""PyIceberg at work on a catalog that calve shares with it.

    catalog.py NAME PROPERTIES create|append|stale|show NAMESPACE.TABLE

PROPERTIES are the catalog's, as one JSON object, `type` (sql, glue) among them.

create   makes the namespace and a table of its own, and appends ids 1, 2, 3
append   appends ids 4 and 5 to a table, whoever made it
stale    loads the table, waits for a line on stdin, then appends; prints "refused" if the catalog refuses it
show     prints what it sees, as one line of JSON
"""

import datetime
import json
import sys

import pyarrow as pa
from pyiceberg.catalog import load_catalog
from pyiceberg.exceptions import CommitFailedException


def rows(table, ids):
    """Rows for any of the tests' tables: ids, and something for the columns that must not be null."""
    schema = table.schema().as_arrow()
    kafka = {"partition": 0, "timestamp": datetime.datetime(2026, 11, 22, tzinfo=datetime.timezone.utc)}
    return pa.Table.from_pylist(
        [{"id": i, "_kafka": kafka} if "_kafka" in schema.names else {"id": i} for i in ids], schema=schema
    )


def main():
    name, properties, action, identifier = sys.argv[1:]
    catalog = load_catalog(name, **json.loads(properties))
    namespace = identifier.rpartition(".")[0]
    if action == "create":
        catalog.create_namespace_if_not_exists(namespace)
        schema = pa.schema([pa.field("id", pa.int64()), pa.field("name", pa.string())])
        table = catalog.create_table(identifier, schema, properties={"made-by": "pyiceberg"})
        table.append(rows(table, [1, 2, 3]))
    elif action == "append":
        table = catalog.load_table(identifier)
        table.append(rows(table, [4, 5]))
    elif action == "stale":
        table = catalog.load_table(identifier)
        print("loaded", flush=True)
        sys.stdin.readline()
        try:
            table.append(rows(table, [6]))
            print("accepted")
        except CommitFailedException:
            print("refused")
    elif action == "show":
        table = catalog.load_table(identifier)
        print(json.dumps({
            "ids": sorted(table.scan().to_arrow()["id"].to_pylist()),
            "fields": {table.schema().find_column_name(f): f for f in table.schema().field_ids},
            "properties": table.properties,
            "uuid": str(table.metadata.table_uuid),
            "namespaces": [".".join(levels) for levels in catalog.list_namespaces()],
            "tables": [".".join(levels) for levels in catalog.list_tables(namespace)],
        }))
    else:
        sys.exit(__doc__)


main()
