"""Values of an Arrow table in a form that is compared between engines; it keeps what JSON loses.

Floats are the hex of their bits ("nan" for any NaN), decimals their unscaled number, times microseconds and dates days
since the epoch, binaries hex, maps sorted lists of pairs.
"""

import datetime
import decimal
import json
import math
import struct

import pyarrow as pa

decimal.getcontext().prec = 80
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def canonical(value, kind):
    if value is None:
        return None
    if pa.types.is_struct(kind):
        return {field.name: canonical(value[field.name], field.type) for field in kind}
    if pa.types.is_map(kind):
        pairs = [[canonical(key, kind.key_type), canonical(item, kind.item_type)] for key, item in value]
        return sorted(pairs, key=lambda pair: json.dumps(pair[0], ensure_ascii=False))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return [canonical(item, kind.value_type) for item in value]
    if pa.types.is_floating(kind):
        if math.isnan(value):
            return "nan"
        return struct.pack(">f" if pa.types.is_float32(kind) else ">d", value).hex()
    if pa.types.is_decimal(kind):
        return f"decimal {int(value.scaleb(kind.scale))}"
    if pa.types.is_timestamp(kind):
        moment = value if value.tzinfo else value.replace(tzinfo=datetime.timezone.utc)
        return f"micros {(moment - EPOCH) // datetime.timedelta(microseconds=1)}"
    if pa.types.is_date(kind):
        return f"days {(value - EPOCH.date()).days}"
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return value.hex()
    return value
