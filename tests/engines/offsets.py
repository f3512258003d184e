"""Where the rows of an Iceberg table came from, as DuckDB reads them: `partition offset` a line, doubled ones twice.
Rows that came from no topic are left out.

    offsets.py METADATA [S3_ENDPOINT]
    offsets.py --files METADATA          how many data files there are instead
"""

import sys

from readback import connect

connection = connect()
if sys.argv[1] == "--files":
    files = "SELECT count(*) FROM iceberg_metadata(?) WHERE status <> 'DELETED'"
    print(connection.execute(files, [sys.argv[2]]).fetchone()[0])
    sys.exit()
if len(sys.argv) > 2:
    endpoint = sys.argv[2].removeprefix("http://")
    connection.execute(
        "CREATE SECRET (TYPE s3, KEY_ID 'calve-access-key', SECRET 'calve-secret-key', REGION 'us-east-1', "
        f"ENDPOINT '{endpoint}', URL_STYLE 'path', USE_SSL false)"
    )
query = "SELECT _kafka.partition, _kafka.offset FROM iceberg_scan(?) WHERE _kafka.topic IS NOT NULL"
for partition, offset in connection.execute(query, [sys.argv[1]]).fetchall():
    print(partition, offset)
