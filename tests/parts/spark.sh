#!/usr/bin/env bash
# Spark with Iceberg's runtime in one long-lived local process that answers SQL (spark/server.py tells how it is asked).
# Prints HOST:PORT
#   spark.sh install | start DIR
# Catalogs are not named here: a session sets `spark.sql.catalog.NAME…` before it uses one.
. "$(dirname "$0")/lib.sh"

SPARK=4.0.5
HOME_=$PARTS/spark-$SPARK
REQUIREMENTS="pyarrow==21.0.0
pandas==2.3.1"

install() {
  rm -rf "$HOME_/jars"
  mkdir -p "$HOME_"
  python_env "$HOME_" "$REQUIREMENTS"
  # It comes as sources only.
  "$HOME_/venv/bin/python" -m pip install --quiet --disable-pip-version-check "pyspark==$SPARK"
  mvn -q -B -f "$HERE/spark/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
    -DoutputDirectory="$HOME_/jars"
}

install_once() {
  JDK=$(find_jdk 17 21); [ -n "$JDK" ] || die "a JDK of version 17 to 21 is missing: apt-get install openjdk-17-jdk-headless"
  local mark; mark=$HOME_/installed-$(echo "$SPARK $REQUIREMENTS" | cat - "$HERE/spark/pom.xml" | sha256sum | cut -c1-12)
  if [ ! -f "$mark" ]; then
    need mvn "it fetches Iceberg's jars once: apt-get install maven"
    once "$mark" install
  fi
}

start() {
  install_once
  local port; port=$(free_port)
  # For Glue, whose client has no properties for keys.
  export JAVA_HOME=$JDK TZ=UTC AWS_ACCESS_KEY_ID=calve-access-key AWS_SECRET_ACCESS_KEY=calve-secret-key
  launch "$HOME_/venv/bin/python" "$HERE/spark/server.py" "$port" "$DIR" "$HOME_/jars"
  ready bash -c "exec 3<>/dev/tcp/127.0.0.1/$port"
  echo "127.0.0.1:$port"
}

if [ "${1:-}" = install ]; then install_once; exit; fi
main "$@"
