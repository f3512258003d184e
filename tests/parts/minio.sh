#!/usr/bin/env bash
# MinIO, an S3 that gives temporary keys (STS), with one bucket, "lake". Prints http://…
#   minio.sh install | start DIR
# Keys: calve-access-key / calve-secret-key. A tool of the tests only (AGPL).
. "$(dirname "$0")/lib.sh"

VERSION=v0.0.0-20260212201848-7aac2a2c5b7c

build() { GOBIN=$PARTS/bin GOFLAGS=-buildvcs=false go install -p 2 "github.com/minio/minio@$VERSION"; }

install_once() {
  [ -f "$PARTS/bin/minio-$VERSION.ok" ] && return
  need go "minio is built with it once; https://go.dev/dl"
  once "$PARTS/bin/minio-$VERSION.ok" build
}

start() {
  install_once
  need curl "apt-get install curl"
  local port; port=$(free_port)
  # A folder is a bucket.
  mkdir -p "$DIR/data/lake"
  launch env MINIO_ROOT_USER=calve-access-key MINIO_ROOT_PASSWORD=calve-secret-key MINIO_BROWSER=off MINIO_UPDATE=off \
    "$PARTS/bin/minio" server --quiet --address "127.0.0.1:$port" "$DIR/data"
  ready curl -sf -o /dev/null "http://127.0.0.1:$port/minio/health/ready"
  echo "http://127.0.0.1:$port"
}

if [ "${1:-}" = install ]; then install_once; exit; fi
main "$@"
