"""Where the rows of an Iceberg table came from, as DuckDB reads them: `partition offset` a line, doubled ones twice.

    offsets.py METADATA
"""

import sys

from readback import connect

query = "SELECT _kafka.partition, _kafka.offset FROM iceberg_scan(?)"
for partition, offset in connect().execute(query, [sys.argv[1]]).fetchall():
    print(partition, offset)
