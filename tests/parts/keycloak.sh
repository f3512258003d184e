#!/usr/bin/env bash
# Keycloak with one realm, "iceberg". Prints the realm's address, http://…
#   keycloak.sh install | start DIR [ttl=SECONDS]
# Tokens: ADDRESS/protocol/openid-connect/token, client "calve" with the secret "calve-client-secret", scope "catalog"; they live
# so long (60).
. "$(dirname "$0")/lib.sh"

VERSION=26.7.3
HOME_=$PARTS/keycloak-$VERSION

unpack() {
  rm -rf "$HOME_/dist"
  mkdir -p "$HOME_/dist"
  mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy \
    -Dartifact="org.keycloak:keycloak-quarkus-dist:$VERSION:tar.gz" -DoutputDirectory="$HOME_"
  tar xzf "$HOME_/keycloak-quarkus-dist-$VERSION.tar.gz" -C "$HOME_/dist" --strip-components=1
  rm "$HOME_/keycloak-quarkus-dist-$VERSION.tar.gz"
  # Its own build step, which a start would do each time.
  JAVA_HOME=$JDK "$HOME_/dist/bin/kc.sh" build --db=dev-mem --cache=local
}

install_once() {
  JDK=$(find_jdk 21); [ -n "$JDK" ] || die "a JDK of version 21 or later is missing: apt-get install openjdk-21-jdk-headless"
  [ -f "$HOME_/ok" ] && return
  need mvn "it fetches Keycloak once: apt-get install maven"
  once "$HOME_/ok" unpack
}

start() {
  install_once
  need curl "apt-get install curl"
  local ttl=60 argument port
  for argument in "$@"; do
    case $argument in
      ttl=*) ttl=${argument#ttl=} ;;
      *) usage ;;
    esac
  done
  # A home of its own, so that several can run: everything but the data is the installation's.
  mkdir -p "$DIR/home/data/import"
  local part
  for part in bin conf lib providers themes; do ln -sfn "$HOME_/dist/$part" "$DIR/home/$part"; done
  cat > "$DIR/home/data/import/iceberg.json" <<JSON
{"realm": "iceberg", "enabled": true, "accessTokenLifespan": $ttl, "sslRequired": "none",
 "clients": [
  {"clientId": "nessie", "enabled": true, "publicClient": false, "secret": "unused"},
  {"clientId": "calve", "enabled": true, "publicClient": false, "secret": "calve-client-secret",
   "serviceAccountsEnabled": true, "standardFlowEnabled": false,
   "protocolMappers": [{"name": "aud", "protocol": "openid-connect", "protocolMapper": "oidc-audience-mapper",
    "config": {"included.custom.audience": "nessie", "access.token.claim": "true"}}]}],
 "clientScopes": [{"name": "catalog", "protocol": "openid-connect", "attributes": {"include.in.token.scope": "true"}}],
 "defaultOptionalClientScopes": ["catalog"]}
JSON
  port=$(free_port)
  launch "$JDK/bin/java" -Xms64m -Xmx384m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dkc.home.dir="$DIR/home" \
    -Djava.util.logging.manager=org.jboss.logmanager.LogManager -Dquarkus-log-max-startup-records=10000 \
    --add-opens=java.base/java.util=ALL-UNNAMED --add-opens=java.base/java.lang=ALL-UNNAMED \
    -cp "$HOME_/dist/lib/quarkus-run.jar" io.quarkus.bootstrap.runner.QuarkusEntryPoint \
    start --optimized --http-enabled=true --hostname-strict=false --http-host=127.0.0.1 --http-port="$port" \
    --import-realm
  ready curl -sf -o /dev/null "http://127.0.0.1:$port/realms/iceberg"
  echo "http://127.0.0.1:$port/realms/iceberg"
}

if [ "${1:-}" = install ]; then install_once; exit; fi
main "$@"
