"""Another writer of a table in a REST catalog on S3: PyIceberg, told what to do line by line on stdin.

    stranger.py REST_URI S3_ENDPOINT NAMESPACE.TABLE

append   adds two rows that came from no topic
rewrite  puts all rows into new files, as a compaction that its engine can only write as an overwrite
set      sets a table property
drop     forgets the table

Answers each with one line: done, or why not (the table moved meanwhile; it is not there).
"""

import datetime
import sys

import pyarrow as pa
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError


def main():
    uri, endpoint, identifier = sys.argv[1:]
    keys = {"s3.access-key-id": "calve-access-key", "s3.secret-access-key": "calve-secret-key"}
    catalog = RestCatalog("chaos", uri=uri, **{"s3.endpoint": endpoint, "s3.region": "us-east-1"}, **keys)
    for number, line in enumerate(sys.stdin):
        try:
            if line.strip() == "drop":
                catalog.drop_table(identifier)
            else:
                act(catalog.load_table(identifier), line.strip(), number)
            print("done", flush=True)
        except (CommitFailedException, NoSuchTableError) as error:
            print("not done:", str(error).replace("\n", " "), flush=True)


def act(table, action, number):
    if action == "append":
        now = datetime.datetime.now(datetime.timezone.utc)
        # What of _kafka must not be null; no topic is named.
        rows = [{"id": -number, "_kafka": {"partition": 0, "timestamp": now}}] * 2
        table.append(pa.Table.from_pylist(rows, schema=table.schema().as_arrow()))
    elif action == "rewrite":
        table.overwrite(table.scan().to_arrow())
    elif action == "set":
        with table.transaction() as transaction:
            transaction.set_properties({"stranger": str(number)})
    else:
        sys.exit(__doc__)


main()
