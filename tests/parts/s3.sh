#!/usr/bin/env bash
# versitygw, an S3 that enforces signatures and knows conditional puts, with one bucket, "lake". Prints http://…
# Keys: calve-access-key / calve-secret-key.
. "$(dirname "$0")/lib.sh"

VERSION=v1.8.0

install() { GOBIN=$PARTS/bin GOFLAGS=-buildvcs=false go install -p 2 "github.com/versity/versitygw/cmd/versitygw@$VERSION"; }

start() {
  if [ ! -f "$PARTS/bin/versitygw-$VERSION.ok" ]; then
    need go "versitygw is built with it once; https://go.dev/dl"
    once "$PARTS/bin/versitygw-$VERSION.ok" install
  fi
  need curl "apt-get install curl"
  local port; port=$(free_port)
  # A folder is a bucket.
  mkdir -p "$DIR/buckets/lake" "$DIR/meta"
  launch env ROOT_ACCESS_KEY=calve-access-key ROOT_SECRET_KEY=calve-secret-key "$PARTS/bin/versitygw" \
    --port "127.0.0.1:$port" --region us-east-1 posix --sidecar "$DIR/meta" "$DIR/buckets"
  ready curl -s -o /dev/null "http://127.0.0.1:$port/"
  echo "http://127.0.0.1:$port"
}

main "$@"
