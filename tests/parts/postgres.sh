#!/usr/bin/env bash
# Postgres (Debian's package) with a database of its own, without passwords. Prints postgresql://…
. "$(dirname "$0")/lib.sh"

find_bin() { ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1; }

install() {
  [ "$(id -u)" = 0 ] || { echo "no Postgres here, and only root can install it: apt-get install postgresql"; return 1; }
  # Debian's package would otherwise start a server of its own.
  mkdir -p /etc/postgresql-common
  [ -f /etc/postgresql-common/createcluster.conf ] || echo "create_main_cluster = false" > /etc/postgresql-common/createcluster.conf
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql
}

# Postgres refuses to run as root.
as() { if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi; }

start() {
  [ -n "$(find_bin)" ] || once "$PARTS/postgres/ok" install
  local bin port data; bin=$(find_bin); [ -n "$bin" ] || die "no Postgres under /usr/lib/postgresql: apt-get install postgresql"
  port=$(free_port)
  # DIR may be closed to the user that Postgres runs as.
  data=$(mktemp -d "${TMPDIR:-/tmp}/calve-postgres-XXXXXX"); echo "$data" > "$DIR/postgres.data"
  [ "$(id -u)" != 0 ] || chown postgres "$data"
  (cd / && as "$bin/initdb" -D "$data" -U calve -A trust -E UTF8 --locale=C --no-sync) > "$DIR/initdb.log" 2>&1 \
    || { tail -5 "$DIR/initdb.log" >&2; die "initdb failed; log $DIR/initdb.log"; }
  cd /
  launch bash -c "echo \$\$ > '$DIR/postgres.launcher'; $(declare -f as); as $bin/postgres -D $data -p $port \
    -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off -c max_connections=200"
  ready as "$bin/pg_isready" -q -h 127.0.0.1 -p "$port" -U calve
  head -1 "$data/postmaster.pid" > "$DIR/postgres.pid"
  echo "postgresql://calve@127.0.0.1:$port/postgres"
}

cleanup() {
  local data; [ -f "$DIR/postgres.data" ] || return 0
  data=$(cat "$DIR/postgres.data"); case $data in */calve-postgres-*) rm -rf "$data";; esac
}

main "$@"
