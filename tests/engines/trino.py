"""Asks a Trino server, and prints rows as the other engines' are printed.

    trino.py ADDRESS    each line of stdin is a statement as JSON text; answers each with one line of JSON: an array of
                        rows in the canonical form of canonical.py, by name. The first that fails ends it.
"""

import base64
import datetime
import decimal
import json
import math
import struct
import sys
import time
import urllib.error
import urllib.request

from canonical import EPOCH


def request(url, body=None):
    # Without the capability, times come rounded to milliseconds.
    headers = {"X-Trino-User": "tests", "X-Trino-Time-Zone": "UTC", "X-Trino-Client-Capabilities": "PARAMETRIC_DATETIME"}
    for attempt in range(5):
        try:
            with urllib.request.urlopen(urllib.request.Request(url, data=body, headers=headers), timeout=120) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            if error.code not in (502, 503, 504) or attempt == 4:
                raise
            time.sleep(0.2)


def run(address, sql):
    reply = request(f"{address}/v1/statement", sql.encode())
    columns, rows = None, []
    while True:
        if "error" in reply:
            sys.exit(f"{sql}: {reply['error'].get('message')}\n{json.dumps(reply['error'].get('failureInfo', {}))[:2000]}")
        columns = reply.get("columns", columns)
        rows += reply.get("data", [])
        if "nextUri" not in reply:
            break
        reply = request(reply["nextUri"])
    named = [(column["name"], column["typeSignature"]) for column in columns or []]
    return [{name: canonical(value, kind) for (name, kind), value in zip(named, row)} for row in rows]


def canonical(value, kind):
    if value is None:
        return None
    name, arguments = kind["rawType"], [argument["value"] for argument in kind.get("arguments", [])]
    if name == "row":
        fields = [(field["fieldName"]["name"], field["typeSignature"]) for field in arguments]
        return {field: canonical(item, inner) for (field, inner), item in zip(fields, value)}
    if name == "array":
        return [canonical(item, arguments[0]) for item in value]
    if name == "map":
        # Keys come as the text of an object's.
        pairs = [[canonical(key(text, arguments[0]), arguments[0]), canonical(item, arguments[1])] for text, item in value.items()]
        return sorted(pairs, key=lambda pair: json.dumps(pair[0], ensure_ascii=False))
    if name in ("real", "double"):
        value = float(value)
        if math.isnan(value):
            return "nan"
        return struct.pack(">f" if name == "real" else ">d", value).hex()
    if name == "decimal":
        return f"decimal {int(decimal.Decimal(value).scaleb(arguments[1]))}"
    if name == "date":
        return f"days {(datetime.date.fromisoformat(value) - EPOCH.date()).days}"
    if name == "timestamp with time zone":
        moment = datetime.datetime.fromisoformat(value.removesuffix(" UTC")).replace(tzinfo=datetime.timezone.utc)
        return f"micros {(moment - EPOCH) // datetime.timedelta(microseconds=1)}"
    if name == "varbinary":
        return base64.b64decode(value).hex()
    return value


def key(text, kind):
    if kind["rawType"] in ("integer", "bigint"):
        return int(text)
    if kind["rawType"] == "boolean":
        return text == "true"
    return text


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(run(sys.argv[1], json.loads(line)), ensure_ascii=False), flush=True)
