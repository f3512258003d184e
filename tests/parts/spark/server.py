"""A local Spark that answers SQL over a socket.

    server.py PORT DIR JARS

A connection is a session of its own. One line of JSON in, one out: a text is a statement of SQL and answers
{"rows": [...]}, each row an object in the canonical form of tests/engines/canonical.py; an object sets the session's
configuration and answers the same with no rows; what fails answers {"error": "..."}.
"""

import json
import os
import socketserver
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "engines"))

import pyarrow as pa
from canonical import canonical
from pyspark.sql import SparkSession


def start(folder, jars):
    options = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Djava.io.tmpdir=" + folder
    configuration = {
        "spark.driver.memory": "1g",
        "spark.driver.extraClassPath": os.path.join(jars, "*"),
        "spark.driver.extraJavaOptions": options,
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.local.dir": folder,
        "spark.sql.warehouse.dir": os.path.join(folder, "spark-warehouse"),
        "spark.sql.catalogImplementation": "in-memory",
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "2",
    }
    builder = SparkSession.builder.master("local[2]").appName("tests")
    for key, value in configuration.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def answer(session, request):
    if isinstance(request, dict):
        for key, value in request.items():
            session.conf.set(key, value)
        return []
    frame = session.sql(request)
    if not frame.columns:
        return []
    table = frame.toArrow()
    kind = pa.struct(list(table.schema))
    return [canonical(row, kind) for row in table.to_pylist()]


class Connection(socketserver.StreamRequestHandler):
    def handle(self):
        session = self.server.spark.newSession()
        for line in self.rfile:
            try:
                reply = {"rows": answer(session, json.loads(line))}
            except Exception as error:
                reply = {"error": str(error)}
            self.wfile.write(json.dumps(reply, ensure_ascii=False).encode() + b"\n")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def main():
    port, folder, jars = sys.argv[1:]
    spark = start(folder, jars)
    with Server(("127.0.0.1", int(port)), Connection) as server:
        server.spark = spark
        server.serve_forever()


main()
