#!/usr/bin/env bash
# Installs every real part of the tests into ${CALVE_PARTS:-~/.cache/calve-parts}, so that a part which cannot be had
# is said here, by name, and not in the middle of a test.
set -euo pipefail
cd "$(dirname "$0")"

try() { # NAME COMMAND...
  local name=$1 started=$SECONDS; shift
  "$@" >/dev/null || { echo "install.sh: $name cannot be had; the lines above say why" >&2; exit 1; }
  echo "$name: ready ($((SECONDS - started)) s)"
}

# Parts that only install when they start: started once, and stopped again.
start_once() {
  local dir failed=0; dir=$(mktemp -d)
  { "./$1.sh" start "$dir" && "./$1.sh" stop "$dir"; } || failed=$?
  rm -rf "$dir"
  return "$failed"
}

try "engines (DuckDB, PyIceberg)" ./engines.sh
try "conformance suite" ./conformance.sh install
try "schemas of others" ./schemas.sh
try "kfbroker (light broker)" ./kfbroker.sh
try "Apache Kafka" ./kafka.sh install
try "Iceberg REST catalog" start_once rest
try "Spark with Iceberg" ./spark.sh install
try "Trino" ./trino.sh install
try "Postgres" start_once postgres
try "versitygw (S3)" start_once s3
try "moto (Glue)" ./glue.sh python
try "Azurite (Azure)" start_once azurite
try "fake-gcs-server (Google)" start_once gcs
try "MinIO (S3 with STS)" start_once minio
try "Keycloak (OAuth2)" ./keycloak.sh install
try "Nessie" ./nessie.sh install
