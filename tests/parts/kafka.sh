#!/usr/bin/env bash
# kafka.sh up DIR PORT [key=value ...]   a real Apache Kafka 4.3.0 (KRaft, one node) on 127.0.0.1:PORT, state in DIR
# kafka.sh down DIR                      stops it (TERM, after 15 s KILL) and keeps the state
# kafka.sh kill DIR                      kill -9
# kafka.sh install                       only fills the cache
#
# `up` formats DIR on first use, waits until the broker is ready and prints its address. PORT+1 is the controller's.
# Pairs key=value are broker properties (first use of DIR only). With CALVE_PARTS_OWNER=PID the broker ends with that
# process, however it ends. Cache: $CALVE_PARTS, default ~/.cache/calve-parts. Needs Java 17 or newer, and Maven once.
set -euo pipefail
version=4.3.0
cache=${CALVE_PARTS:-$HOME/.cache/calve-parts}/kafka-$version
heap=${CALVE_KAFKA_HEAP:-384m}

fail() { echo "kafka.sh: $*" >&2; exit 1; }

# The pid of DIR's broker if it lives. Its command line is compared: the pid may be somebody else's by now.
alive() {
  local pid
  pid=$(cat "$1/kafka.pid" 2>/dev/null) || return 1
  tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF "kafka.Kafka $1/server.properties" || return 1
  echo "$pid"
}

install() {
  [ -f "$cache/.done" ] && return
  command -v mvn >/dev/null || fail "Maven is missing: it fetches the broker's jars (Debian: apt install maven)"
  mkdir -p "$cache"
  exec 9>"$cache/.lock"; flock 9
  if [ ! -f "$cache/.done" ]; then
    {
      echo '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
      echo '<groupId>calve</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging><dependencies>'
      for artifact in org.apache.kafka:kafka_2.13:$version org.apache.kafka:kafka-tools:$version \
          org.apache.logging.log4j:log4j-slf4j-impl:2.25.4 org.apache.logging.log4j:log4j-core:2.25.4; do
        IFS=: read -r group name number <<<"$artifact"
        echo "<dependency><groupId>$group</groupId><artifactId>$name</artifactId><version>$number</version></dependency>"
      done
      echo '</dependencies></project>'
    } >"$cache/pom.xml"
    rm -rf "$cache/libs"
    mvn -q -B -f "$cache/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$cache/libs" >"$cache/mvn.log" 2>&1 \
      || { cat "$cache/mvn.log" >&2; fail "Maven could not fetch Kafka $version"; }
    cat >"$cache/log4j2.properties" <<'LOG'
rootLogger.level = WARN
rootLogger.appenderRef.stdout.ref = STDOUT
appender.console.type = Console
appender.console.name = STDOUT
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d] %p %m (%c)%n
logger.server.name = kafka.server.KafkaRaftServer
logger.server.level = INFO
LOG
    touch "$cache/.done"
  fi
  flock -u 9; exec 9>&-
}

configure() { # DIR PORT key=value ...
  local dir=$1 port=$2; shift 2
  # One of everything, and nothing waits: groups form, logs roll, are cleaned and expire within seconds. Only the
  # broker's own session keeps its default of 9 s: a shorter one expires on a busy machine, and partitions lose their
  # leader. It is what a restart after `kill` waits for.
  cat >"$dir/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:$((port + 1))
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))
advertised.listeners=PLAINTEXT://127.0.0.1:$port
log.dirs=$dir/data
auto.create.topics.enable=false
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.cleaner.backoff.ms=500
log.cleaner.dedupe.buffer.size=8388608
log.retention.check.interval.ms=1000
log.initial.task.delay.ms=500
file.delete.delay.ms=1000
num.network.threads=2
num.io.threads=4
background.threads=2
num.recovery.threads.per.data.dir=1
PROPERTIES
  local pair
  for pair in "$@"; do echo "$pair" >>"$dir/server.properties"; done
}

up() { # DIR PORT key=value ...
  local dir port=$2 java pid
  mkdir -p "$1"; dir=$(cd "$1" && pwd); shift 2
  install
  java=${CALVE_JAVA:-$(command -v java || true)}
  [ -n "$java" ] || fail "Java 17 or newer is missing (Debian: apt install openjdk-17-jre-headless)"
  pid=$(alive "$dir") && fail "pid $pid already runs on $dir"
  local options=(-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xshare:auto -Djava.awt.headless=true
    "-Dlog4j2.configurationFile=$cache/log4j2.properties" -cp "$cache/libs/*")
  if [ ! -f "$dir/data/meta.properties" ]; then
    configure "$dir" "$port" "$@"
    # A cluster id is 16 bytes in base64url; a leading letter keeps it from looking like an option.
    local id; id=a$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | cut -c2-22)
    "$java" "${options[@]}" kafka.tools.StorageTool format --standalone -t "$id" -c "$dir/server.properties" \
      >"$dir/format.log" 2>&1 || { cat "$dir/format.log" >&2; fail "cannot format $dir"; }
  fi
  touch "$dir/kafka.log"
  local mark; mark=$(wc -c <"$dir/kafka.log")
  setsid nohup "$java" "-Xms$heap" "-Xmx$heap" "${options[@]}" kafka.Kafka "$dir/server.properties" \
    >>"$dir/kafka.log" 2>&1 </dev/null &
  pid=$!; echo "$pid" >"$dir/kafka.pid"
  if [ -n "${CALVE_PARTS_OWNER:-}" ]; then
    setsid bash -c 'while kill -0 "$0" 2>/dev/null && kill -0 "$1" 2>/dev/null; do sleep 1; done; kill -9 "$1" 2>/dev/null' \
      "$CALVE_PARTS_OWNER" "$pid" >/dev/null 2>&1 </dev/null &
  fi
  local end=$((SECONDS + ${CALVE_KAFKA_WAIT:-120}))
  until tail -c +"$((mark + 1))" "$dir/kafka.log" | grep -q 'Kafka Server started' \
      && (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
    alive "$dir" >/dev/null || kill -0 "$pid" 2>/dev/null || { tail -40 "$dir/kafka.log" >&2; fail "the broker ended"; }
    [ $SECONDS -lt $end ] || { tail -40 "$dir/kafka.log" >&2; fail "the broker is not ready in time"; }
    sleep 0.1
  done
  echo "127.0.0.1:$port"
}

stop() { # DIR SIGNAL
  local dir pid
  dir=$(cd "$1" && pwd)
  pid=$(alive "$dir") || { rm -f "$dir/kafka.pid"; return; }
  kill -"$2" "$pid" 2>/dev/null || true
  for _ in $(seq 150); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
  kill -KILL "$pid" 2>/dev/null || true
  rm -f "$dir/kafka.pid"
}

case "${1:-} $#" in
  "install 1") install ;;
  "up "[3-9]* | "up 1"[0-9]) shift; up "$@" ;;
  "down 2") stop "$2" TERM ;;
  "kill 2") stop "$2" KILL ;;
  *) sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
