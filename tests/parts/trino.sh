#!/usr/bin/env bash
# Trino with its Iceberg connector, put together from Maven Central's jars (there is no server tarball of this release
# there). Catalogs are not named here: CREATE CATALOG makes them. Prints http://HOST:PORT
#   trino.sh install | start DIR
. "$(dirname "$0")/lib.sh"

TRINO=483
HOME_=$PARTS/trino-$TRINO

jars() { # MODULE: the jars that it needs, into lib-MODULE
  mkdir -p "$HOME_/$1"
  cat > "$HOME_/$1/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<parent><groupId>io.trino</groupId><artifactId>trino-root</artifactId><version>$TRINO</version><relativePath/></parent>
<groupId>calve</groupId><artifactId>trino-$1-part</artifactId><packaging>pom</packaging>
<dependencies>
<dependency><groupId>io.trino</groupId><artifactId>trino-$1</artifactId><version>$TRINO</version></dependency>
<dependency><groupId>org.xerial</groupId><artifactId>sqlite-jdbc</artifactId><version>3.49.1.0</version></dependency>
</dependencies></project>
POM
  JAVA_HOME=$JDK mvn -q -B -f "$HOME_/$1/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$HOME_/lib-$1"
}

install() {
  rm -rf "$HOME_"/{main,iceberg,lib-main,lib-iceberg,plugin,services}
  jars main
  jars iceberg
  mkdir -p "$HOME_/plugin" "$HOME_/services/META-INF/services"
  mv "$HOME_/lib-iceberg" "$HOME_/plugin/iceberg"
  # The server lends these to its plugins.
  rm -f "$HOME_"/plugin/iceberg/{trino-spi,slice,jol-core,opentelemetry-api,opentelemetry-context,opentelemetry-common,jackson-annotations}-[0-9]*.jar
  echo io.trino.plugin.iceberg.IcebergPlugin > "$HOME_/services/META-INF/services/io.trino.spi.Plugin"
  "$JDK/bin/jar" cf "$HOME_/plugin/iceberg/services.jar" -C "$HOME_/services" META-INF
}

compile() {
  rm -rf "$HOME_/out"
  "$JDK/bin/javac" -cp "$HOME_/lib-main/*" -d "$HOME_/out" "$HERE/trino/RunTrino.java"
}

install_once() {
  JDK=$(find_jdk 25)
  [ -n "$JDK" ] || die "a JDK of version 25 or later is missing: apt-get install openjdk-25-jdk-headless, or temurin-25-jdk from adoptium.net"
  need curl "apt-get install curl"
  if [ ! -f "$HOME_/ok" ]; then
    need mvn "it fetches Trino's jars once: apt-get install maven"
    once "$HOME_/ok" install
  fi
  once "$HOME_/compiled-$(sha256sum "$HERE/trino/RunTrino.java" | cut -c1-12)" compile
}

answers() { curl -sf "http://127.0.0.1:$1/v1/info" | grep -q '"starting":false'; }

start() {
  install_once
  local port; port=$(free_port)
  mkdir -p "$DIR/data" "$DIR/catalog"
  cat > "$DIR/config.properties" <<PROPERTIES
coordinator=true
node-scheduler.include-coordinator=true
http-server.http.port=$port
discovery.uri=http://127.0.0.1:$port
catalog.management=dynamic
catalog.store=memory
query.max-memory=512MB
query.max-memory-per-node=512MB
memory.heap-headroom-per-node=256MB
plugin.dir=$HOME_/plugin
PROPERTIES
  cd "$DIR"
  launch "$JDK/bin/java" -server -Xmx1500m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:+ExplicitGCInvokesConcurrent \
    -XX:-OmitStackTraceInFastThrow -Djdk.attach.allowAttachSelf=true -Djdk.nio.maxCachedBufferSize=2000000 \
    --enable-native-access=ALL-UNNAMED --sun-misc-unsafe-memory-access=allow --add-modules=jdk.incubator.vector \
    -Dnode.environment=test -Dnode.id=local -Dnode.bind-ip=127.0.0.1 -Dnode.internal-address=127.0.0.1 \
    -Dnode.data-dir="$DIR/data" -Dconfig="$DIR/config.properties" -cp "$HOME_/out:$HOME_/lib-main/*" RunTrino "$TRINO"
  ready answers "$port"
  echo "http://127.0.0.1:$port"
}

if [ "${1:-}" = install ]; then install_once; exit; fi
main "$@"
