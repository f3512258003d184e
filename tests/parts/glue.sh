#!/usr/bin/env bash
# moto's Glue with the optimistic lock that Glue has and moto lacks (see glue/strict.py). Prints http://…
#   glue.sh python              installs, and prints a Python that has PyIceberg's GlueCatalog
. "$(dirname "$0")/lib.sh"

HOME_=$PARTS/glue
REQUIREMENTS="moto[glue,server]==5.2.5
pyiceberg[glue,pyarrow]==0.11.1"

install() {
  python_env "$HOME_" "$REQUIREMENTS"
  "$HOME_/venv/bin/python" -c "import moto.glue.responses, moto.server, pyiceberg.catalog.glue, pyarrow"
}

# Installed once, and again whenever the list changes.
installed() { once "$HOME_/$(echo "$REQUIREMENTS" | sha256sum | cut -c1-12)" install; }

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
