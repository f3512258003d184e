#!/usr/bin/env bash
# kfbroker.sh: builds the tests' light broker (tests/parts/kfbroker, Go) once into the cache; prints the binary's path.
# Cache: $CALVE_PARTS, default ~/.cache/calve-parts. Needs Go 1.26 or newer (an older one fetches it by itself).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${CALVE_PARTS:-$HOME/.cache/calve-parts}/kfbroker
go=$(command -v go || true)
[ -n "$go" ] || { [ -x /usr/local/go/bin/go ] && go=/usr/local/go/bin/go; } \
  || { echo "kfbroker.sh: Go is missing (https://go.dev/doc/install): the light broker of the tests is built with it" >&2; exit 1; }

# One binary for each state of the sources, so that work trees do not disturb each other.
version=$(cat "$here"/kfbroker/{main.go,go.mod,go.sum} | sha256sum | cut -c1-16)
binary=$cache/kfbroker-$version
if [ ! -x "$binary" ]; then
  mkdir -p "$cache"
  exec 9>"$cache/.lock"; flock 9
  if [ ! -x "$binary" ]; then
    (cd "$here/kfbroker" && "$go" build -buildvcs=false -o "$binary.part" .) >"$cache/build.log" 2>&1 \
      || { echo "kfbroker.sh: the build failed:" >&2; cat "$cache/build.log" >&2; exit 1; }
    mv "$binary.part" "$binary"
  fi
fi
echo "$binary"
