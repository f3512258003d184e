#!/usr/bin/env bash
# Iceberg's own REST server (RESTServerCatalogAdapter from its test fixtures) over a SQLite JdbcCatalog. Prints http://…
#   rest.sh start DIR [token=T | auth=ID:SECRET [ttl=SECONDS]] [warehouse=s3://… and other catalog properties]
# token=T: refuses requests without it; auth: those without a token of its own, which lives so long. See rest/LocalRest.java
# for faults on demand (/_fault) and the log (/_log).
. "$(dirname "$0")/lib.sh"

VERSION=1.11.0
HOME_=$PARTS/rest-$VERSION

install() {
  rm -rf "$HOME_/lib" "$HOME_/out"
  mvn -q -B -f "$HERE/rest/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
    -DoutputDirectory="$HOME_/lib"
}

compile() {
  rm -rf "$HOME_/out"
  "$JDK/bin/javac" -cp "$HOME_/lib/*" -d "$HOME_/out" "$HERE/rest/LocalRest.java"
}

start() {
  JDK=$(find_jdk 17); [ -n "$JDK" ] || die "a JDK of version 17 or later is missing: apt-get install openjdk-17-jdk-headless"
  need curl "apt-get install curl"
  if [ ! -f "$HOME_/ok" ]; then
    need mvn "it fetches Iceberg's jars once: apt-get install maven"
    once "$HOME_/ok" install
  fi
  # Compiled again whenever the source changes.
  once "$HOME_/compiled-$(sha256sum "$HERE/rest/LocalRest.java" | cut -c1-12)" compile
  local port warehouse=(); port=$(free_port)
  case " $* " in *" warehouse="*) ;; *) mkdir -p "$DIR/warehouse"; warehouse=("warehouse=file://$DIR/warehouse") ;; esac
  # SQLite takes one writer: one connection spares "database is locked".
  launch "$JDK/bin/java" -Xmx384m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$HOME_/out:$HOME_/lib/*" \
    org.apache.iceberg.rest.LocalRest "$port" "uri=jdbc:sqlite:$DIR/rest.db" clients=1 ${warehouse[@]+"${warehouse[@]}"} "$@"
  ready curl -s -o /dev/null "http://127.0.0.1:$port/v1/config"
  echo "http://127.0.0.1:$port"
}

main "$@"
