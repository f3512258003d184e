#!/usr/bin/env bash
# moto's Glue with the optimistic lock that Glue has and moto lacks (see glue/strict.py). Prints http://…
#   glue.sh python              installs, and prints a Python that has PyIceberg's GlueCatalog
. "$(dirname "$0")/lib.sh"

HOME_=$PARTS/glue
REQUIREMENTS="moto[glue,server]==5.2.5
pyiceberg[glue,pyarrow]==0.11.1"

# As for the engines: what a reader accepts is part of what the tests promise, so versions are pinned.
find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3.13 python3.12 python3.11 python3.10 python3; do
    [ -n "$candidate" ] || continue
    "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && { echo "$candidate"; return; }
  done
}

install() {
  rm -rf "$HOME_/venv"
  "$BASE" -m venv "$HOME_/venv"
  "$HOME_/venv/bin/python" -m pip install --quiet --disable-pip-version-check --prefer-binary $REQUIREMENTS
  "$HOME_/venv/bin/python" -c "import moto.glue.responses, moto.server, pyiceberg.catalog.glue, pyarrow"
}

installed() {
  BASE=$(find_python); [ -n "$BASE" ] || die "no Python 3.10 to 3.13 found; install one, or name it in \$PYTHON"
  once "$HOME_/$(echo "$REQUIREMENTS" | sha256sum | cut -c1-12)" install
}

start() {
  need curl "apt-get install curl"
  installed
  local port; port=$(free_port)
  launch "$HOME_/venv/bin/python" "$HERE/glue/strict.py" -H 127.0.0.1 -p "$port"
  ready curl -s -o /dev/null "http://127.0.0.1:$port/moto-api/"
  echo "http://127.0.0.1:$port"
}

if [ "${1:-}" = python ]; then installed; echo "$HOME_/venv/bin/python"; exit; fi
main "$@"
