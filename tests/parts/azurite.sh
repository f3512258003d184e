#!/usr/bin/env bash
# Azurite, Azure's Blob Storage emulator (checks shared keys), with one container, "lake". Prints http://…/ACCOUNT
# The account and key are the well-known ones of Azure's emulators.
. "$(dirname "$0")/lib.sh"

VERSION=3.37.0
HOME_=$PARTS/azurite-$VERSION

install() {
  mkdir -p "$HOME_"
  (cd "$HOME_" && npm install --silent --no-audit --no-fund --no-save "azurite@$VERSION")
}

start() {
  need node "Azurite runs on it: apt-get install nodejs"
  if [ ! -f "$HOME_/ok" ]; then
    need npm "it fetches Azurite once: apt-get install npm"
    once "$HOME_/ok" install
  fi
  need curl "apt-get install curl"
  local port; port=$(free_port)
  launch node "$HOME_/node_modules/azurite/dist/src/blob/main.js" --blobHost 127.0.0.1 --blobPort "$port" \
    --inMemoryPersistence --skipApiVersionCheck --disableTelemetry --silent
  ready curl -s -o /dev/null "http://127.0.0.1:$port/"
  node "$HERE/azurite/container.js" "http://127.0.0.1:$port/devstoreaccount1" lake >> "$DIR/$NAME.log" 2>&1 \
    || die "the container cannot be made; log $DIR/$NAME.log"
  echo "http://127.0.0.1:$port/devstoreaccount1"
}

main "$@"
