#!/usr/bin/env bash
# engines.sh: the query engines of the read-back tests, in a Python virtual environment of their own.
#
# Installs once into ${CALVE_PARTS:-$HOME/.cache/calve-parts}/engines and prints the path of its python on stdout;
# everything else goes to stderr. Versions are pinned: what a reader accepts is part of what the tests promise.
# DuckDB loads its extensions from the environment's site-packages, so nothing is fetched while tests run.
. "$(dirname "$0")/lib.sh"

requirements="duckdb==1.5.5
duckdb-extension-avro==1.5.5
duckdb-extension-httpfs==1.5.5
duckdb-extension-iceberg==1.5.5
pyiceberg[sql-sqlite,pyarrow]==0.11.1
protobuf==6.33.1
pytz==2025.2"

home="$PARTS/engines"
python="$home/venv/bin/python"

mkdir -p "$home"
# Test binaries may ask at the same time; one installs, the others wait for it.
exec 9>"$home/lock"
if command -v flock >/dev/null; then flock 9; fi

if [ ! -x "$python" ] || [ "$(cat "$home/installed" 2>/dev/null)" != "$requirements" ]; then
    python_env "$home" "$requirements"
    log="$home/install.log"
    "$python" - >"$log" 2>&1 <<'PY' || die "the engines are installed but do not start; see $log"
import glob, os, site
import duckdb, pyiceberg.catalog.sql, pyarrow, google.protobuf
connection = duckdb.connect(config={"allow_unsigned_extensions": "true"})
for name in ("avro", "httpfs", "iceberg"):
    found = [file for folder in site.getsitepackages()
             for file in glob.glob(os.path.join(folder, "**", f"{name}.duckdb_extension"), recursive=True)]
    assert found, f"no {name}.duckdb_extension in site-packages"
    connection.execute(f"LOAD '{found[0]}'")
PY
    printf '%s\n' "$requirements" >"$home/installed"
fi
echo "$python"
