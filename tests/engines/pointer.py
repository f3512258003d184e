"""The current metadata file of a table, as a SQLite catalog has it.

    pointer.py DATABASE NAMESPACE TABLE
"""

import sqlite3
import sys

database, namespace, table = sys.argv[1:]
connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)
query = "SELECT metadata_location FROM iceberg_tables WHERE table_namespace = ? AND table_name = ?"
print(connection.execute(query, [namespace, table]).fetchone()[0].removeprefix("file://"))
