#!/usr/bin/env bash
# fake-gcs-server, with one bucket, "lake", and no credentials. Prints http://…
. "$(dirname "$0")/lib.sh"

VERSION=v1.56.1

install() { GOBIN=$PARTS/bin GOFLAGS=-buildvcs=false go install -p 2 "github.com/fsouza/fake-gcs-server@$VERSION"; }

start() {
  if [ ! -f "$PARTS/bin/fake-gcs-server-$VERSION.ok" ]; then
    need go "fake-gcs-server is built with it once; https://go.dev/dl"
    once "$PARTS/bin/fake-gcs-server-$VERSION.ok" install
  fi
  need curl "apt-get install curl"
  local port; port=$(free_port)
  launch "$PARTS/bin/fake-gcs-server" -scheme http -host 127.0.0.1 -port "$port" -backend memory \
    -public-host "127.0.0.1:$port" -external-url "http://127.0.0.1:$port"
  ready curl -s -o /dev/null "http://127.0.0.1:$port/storage/v1/b"
  curl -s -f -o /dev/null -X POST -H 'Content-Type: application/json' -d '{"name":"lake"}' "http://127.0.0.1:$port/storage/v1/b?project=calve" \
    || die "the bucket cannot be made; log $DIR/$NAME.log"
  echo "http://127.0.0.1:$port"
}

main "$@"
