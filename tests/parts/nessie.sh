#!/usr/bin/env bash
# Nessie, an Iceberg REST catalog that asks a Keycloak who is there (keycloak.sh) and vends temporary keys of a MinIO (minio.sh).
# It keeps a table's newest snapshot only. Prints http://…
#   nessie.sh install | start DIR realm=ADDRESS s3=ADDRESS
# Its one warehouse is "lake", in the bucket of that name.
. "$(dirname "$0")/lib.sh"

VERSION=0.99.0
JAR=$PARTS/nessie-$VERSION/nessie-quarkus-$VERSION-runner.jar

fetch() {
  mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy \
    -Dartifact="org.projectnessie.nessie:nessie-quarkus:$VERSION:jar:runner" -DoutputDirectory="$(dirname "$JAR")"
}

install_once() {
  JDK=$(find_jdk 21); [ -n "$JDK" ] || die "a JDK of version 21 or later is missing: apt-get install openjdk-21-jdk-headless"
  [ -f "$JAR.ok" ] && return
  need mvn "it fetches Nessie once: apt-get install maven"
  once "$JAR.ok" fetch
}

start() {
  install_once
  need curl "apt-get install curl"
  local realm="" s3="" argument
  for argument in "$@"; do
    case $argument in
      realm=*) realm=${argument#realm=} ;;
      s3=*) s3=${argument#s3=} ;;
      *) usage ;;
    esac
  done
  [ -n "$realm" ] && [ -n "$s3" ] || usage
  local port management options=nessie.catalog.service.s3.default-options; port=$(free_port); management=$(free_port)
  launch "$JDK/bin/java" -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
    -Dquarkus.http.host=127.0.0.1 -Dquarkus.http.port="$port" \
    -Dquarkus.management.host=127.0.0.1 -Dquarkus.management.port="$management" -Dnessie.version.store.type=IN_MEMORY \
    -Dnessie.catalog.default-warehouse=lake -Dnessie.catalog.warehouses.lake.location=s3://lake/nessie \
    -D$options.endpoint="$s3/" -D$options.sts-endpoint="$s3/" -D$options.path-style-access=true -D$options.region=us-east-1 \
    -D$options.access-key=urn:nessie-secret:quarkus:lakecreds -Dlakecreds.name=calve-access-key -Dlakecreds.secret=calve-secret-key \
    -D$options.client-iam.enabled=true -D$options.client-iam.assume-role=arn:aws:iam::123456789012:role/x \
    -D$options.request-signing-enabled=false \
    -Dnessie.server.authentication.enabled=true -Dquarkus.oidc.tenant-enabled=true \
    -Dquarkus.oidc.auth-server-url="$realm" -Dquarkus.oidc.client-id=nessie -jar "$JAR"
  ready curl -s -o /dev/null "http://127.0.0.1:$port/iceberg/v1/config"
  echo "http://127.0.0.1:$port/iceberg"
}

if [ "${1:-}" = install ]; then install_once; exit; fi
main "$@"
