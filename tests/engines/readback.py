"""Reads an Iceberg table with engines that calve's authors did not write.

    readback.py rows ENGINE METADATA...  every row as one line of canonical JSON; ENGINE is duckdb or pyiceberg; an
                                         empty line after each table
    readback.py metrics METADATA         manifest entries against the contents of their files
    readback.py filters METADATA         filtered scans, which skip files by their bounds, against the files' contents

METADATA is the location of the table's current metadata.json; canonical.py tells what canonical JSON is.

`metrics` and `filters` print one JSON object: how much was looked at, and every difference.
"""

import datetime
import decimal
import glob
import json
import math
import os
import site
import sys

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from canonical import EPOCH, canonical
from pyiceberg.conversions import from_bytes
from pyiceberg.expressions import EqualTo, GreaterThanOrEqual, IsNull, LessThan
from pyiceberg.table import StaticTable
from pyiceberg.transforms import TruncateTransform
from pyiceberg.types import BinaryType, DoubleType, FloatType, ListType, MapType, StringType, StructType


def connect():
    connection = duckdb.connect(config={"allow_unsigned_extensions": "true"})
    for name in ("avro", "httpfs", "iceberg"):
        folders = site.getsitepackages()
        files = [f for d in folders for f in glob.glob(os.path.join(d, "**", f"{name}.duckdb_extension"), recursive=True)]
        if not files:
            sys.exit(f"no {name}.duckdb_extension in {folders}")
        connection.execute(f"LOAD '{files[0]}'")
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def scan(engine, metadata):
    if engine == "duckdb":
        return connect().execute(f"SELECT * FROM iceberg_scan('{metadata}')").to_arrow_table()
    if engine == "pyiceberg":
        return StaticTable.from_metadata(metadata).scan().to_arrow()
    sys.exit(f"no engine {engine}")


def rows(engine, metadata):
    table = scan(engine, metadata)
    kind = pa.struct(list(table.schema))
    for row in table.to_pylist():
        print(json.dumps(canonical(row, kind), ensure_ascii=False))


def leaves(struct_type, path=(), repeated=False):
    """(path, field, repeated) of every primitive column."""
    for field in struct_type.fields:
        here = path + (field.name,)
        kind = field.field_type
        if isinstance(kind, StructType):
            yield from leaves(kind, here, repeated)
        elif isinstance(kind, ListType):
            yield from inner(kind.element_type, kind.element_id, here + ("element",))
        elif isinstance(kind, MapType):
            yield from inner(kind.key_type, kind.key_id, here + ("key",))
            yield from inner(kind.value_type, kind.value_id, here + ("value",))
        else:
            yield here, field.field_id, kind, repeated


def inner(kind, field_id, path):
    if isinstance(kind, StructType):
        yield from leaves(kind, path, True)
    elif not isinstance(kind, (ListType, MapType)):
        yield path, field_id, kind, True


def at(row, path):
    for name in path:
        if row is None:
            return None
        row = row[name]
    return row


def comparable(value):
    """Timestamps and dates as the numbers that bounds are."""
    if isinstance(value, datetime.datetime):
        return (value - EPOCH) // datetime.timedelta(microseconds=1)
    if isinstance(value, datetime.date):
        return (value - EPOCH.date()).days
    return value


def metrics(metadata):
    table = StaticTable.from_metadata(metadata)
    columns = list(leaves(table.schema().as_struct()))
    differences = []
    files = [task.file for task in table.scan().plan_files()]
    bounded = 0
    for file in files:
        path = file.file_path.removeprefix("file://")

        def check(what, said, true):
            if said != true:
                differences.append(f"{os.path.basename(path)}: {what}: manifest {said!r}, file {true!r}")

        parquet = pq.ParquetFile(path)
        footer = parquet.metadata
        content = parquet.read().to_pylist()
        check("record_count", file.record_count, len(content))
        check("file_size", file.file_size_in_bytes, os.path.getsize(path))
        groups = [footer.row_group(index) for index in range(footer.num_row_groups)]
        starts = []
        for group in groups:
            first = group.column(0)
            offsets = [first.data_page_offset] + ([first.dictionary_page_offset] if first.has_dictionary_page else [])
            starts.append(min(offsets))
        check("split_offsets", list(file.split_offsets), starts)
        check("sort_order_id", file.sort_order_id, 0)
        check("columns", footer.num_columns, len(columns))
        for index, (name, field_id, kind, repeated) in enumerate(columns):
            label = ".".join(name)
            chunks = [group.column(index) for group in groups]
            check(f"{label} column_size", file.column_sizes.get(field_id), sum(c.total_compressed_size for c in chunks))
            check(f"{label} value_count", file.value_counts.get(field_id), sum(c.num_values for c in chunks))
            low, high = file.lower_bounds.get(field_id), file.upper_bounds.get(field_id)
            if repeated:
                check(f"{label} bounds", (low, high), (None, None))
                continue
            values = [at(row, name) for row in content]
            known = [value for value in values if value is not None]
            check(f"{label} null_count", file.null_value_counts.get(field_id), len(values) - len(known))
            if isinstance(kind, (FloatType, DoubleType)):
                nans = sum(math.isnan(value) for value in known)
                check(f"{label} nan_count", file.nan_value_counts.get(field_id), nans)
                known = [value for value in known if not math.isnan(value)]
            if not known:
                check(f"{label} bounds", (low, high), (None, None))
                continue
            known = [comparable(value) for value in known]
            smallest, largest = min(known), max(known)
            said_low = from_bytes(kind, low)
            said_high = None if high is None else from_bytes(kind, high)
            bounded += 1
            if isinstance(kind, (StringType, BinaryType)):
                check(f"{label} lower_bound", said_low, smallest[:16])
                if len(largest) <= 16:
                    check(f"{label} upper_bound", said_high, largest)
                elif said_high is not None:
                    check(f"{label} upper_bound", (said_high > largest, len(said_high) <= 16), (True, True))
                    check(f"{label} upper_bound's start", said_high[:-1], largest[: len(said_high) - 1])
            else:
                check(f"{label} lower_bound", said_low, smallest)
                check(f"{label} upper_bound", said_high, largest)
    print(json.dumps({"files": len(files), "bounds": bounded, "differences": differences}))


def literal(value, kind):
    """A value in DuckDB's SQL."""
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, bytes):
        return "'" + "".join(f"\\x{byte:02X}" for byte in value) + "'::BLOB"
    if isinstance(value, datetime.datetime):
        return f"TIMESTAMPTZ '{value.replace(tzinfo=None).isoformat(sep=' ')}+00'"
    if isinstance(value, datetime.date):
        return f"DATE '{value.isoformat()}'"
    if isinstance(value, float):
        return f"CAST('{value!r}' AS {'FLOAT' if isinstance(kind, FloatType) else 'DOUBLE'})"
    if isinstance(value, decimal.Decimal):
        return f"CAST('{value}' AS DECIMAL({kind.precision},{kind.scale}))"
    return str(value)


def filters(metadata):
    """A file that a filter skips must hold no row that the filter takes; and DuckDB must count the rows that it takes."""
    table = StaticTable.from_metadata(metadata)
    paths = [task.file.file_path for task in table.scan().plan_files()]
    files = {path: pq.ParquetFile(path.removeprefix("file://")).read().to_pylist() for path in paths}
    connection = connect()
    truncated = {field.source_id for field in table.spec().fields if isinstance(field.transform, TruncateTransform)}
    differences, checked, pruned = [], 0, 0

    for name, field_id, kind, repeated in leaves(table.schema().as_struct()):
        if repeated:
            continue
        values = {file: [at(row, name) for row in rows] for file, rows in files.items()}
        usable = sorted({value for column in values.values() for value in column if probes(value)})
        if not usable:
            continue
        path = ".".join(name)
        sql = ".".join(f'"{part}"' for part in name)
        tests = [(f"{sql} IS NULL", IsNull(path), lambda value: value is None)]
        for bound in dict.fromkeys([usable[len(usable) // 2], usable[-1]]):
            text = literal(bound, kind)
            term = bound.isoformat() if isinstance(bound, datetime.date) else bound
            tests.append((f"{sql} = {text}", EqualTo(path, term), lambda value, bound=bound: value == bound))
            if isinstance(bound, bool):
                continue
            tests.append((f"{sql} < {text}", LessThan(path, term), lambda value, bound=bound: value < bound))
            # DuckDB sorts NaN above all numbers, PyIceberg nowhere.
            if not isinstance(bound, float):
                expression = GreaterThanOrEqual(path, term)
                tests.append((f"{sql} >= {text}", expression, lambda value, bound=bound: value >= bound))
        for condition, expression, test in tests:
            takes_null = isinstance(expression, IsNull)
            matches = {
                file: sum(test(value) for value in column if takes_null or value is not None)
                for file, column in values.items()
            }
            expected = sum(matches.values())
            planned = {task.file.file_path for task in table.scan(row_filter=expression).plan_files()}
            lost = sum(count for file, count in matches.items() if file not in planned)
            pruned += len(files) - len(planned)
            checked += 1
            # Each of DuckDB's scans opens every manifest again: some of them will do. DuckDB 1.5.5 skips too much where
            # a decimal beyond 64 bits is partitioned by truncate, in PyIceberg's tables as in ours.
            wide = isinstance(usable[-1], decimal.Decimal) and usable[-1] >= 2**63 and field_id in truncated
            if not wide and " IS " not in condition and " >= " not in condition:
                counting = f"SELECT count(*) FROM iceberg_scan('{metadata}') WHERE {condition}"
                (by_duckdb,) = connection.execute(counting).fetchone()
                if by_duckdb != expected:
                    differences.append(f"duckdb: {condition}: {by_duckdb} of {expected}")
            if lost:
                differences.append(f"pyiceberg: {condition}: {lost} of {expected} lie in files it skips")
    print(json.dumps({"filters": checked, "files_pruned": pruned, "differences": differences}))


def probes(value):
    """Whether a value can be asked for: a NUL ends DuckDB's SQL text, NaN and infinity have no place in an order."""
    if isinstance(value, str):
        return "\0" not in value
    if isinstance(value, float):
        return math.isfinite(value)
    return value is not None


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")
    match sys.argv[1:]:
        case ["rows", engine, *tables]:
            for metadata in tables:
                rows(engine, metadata)
                print()
        case ["metrics", metadata]:
            metrics(metadata)
        case ["filters", metadata]:
            filters(metadata)
        case _:
            sys.exit(__doc__)
