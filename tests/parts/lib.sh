# Sourced by the scripts beside it, each of which starts one real part for the tests:
#
#   NAME.sh start DIR [key=value...]   installs what is missing (once, into $CALVE_PARTS, default ~/.cache/calve-parts),
#                                      starts on a free port of 127.0.0.1, waits until it answers, prints the address
#   NAME.sh stop DIR                   stops it; its data goes with the folder
#
# DIR gets the data, NAME.log and NAME.pid. With CALVE_PARTS_OWNER=PID the part ends when that process does.
# Whatever cannot be had is said on stderr in one line, and the exit code is 1.
set -euo pipefail
PARTS=${CALVE_PARTS:-$HOME/.cache/calve-parts}
NAME=$(basename "$0" .sh)
HERE=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$PARTS"

die() { echo "$NAME: $*" >&2; exit 1; }

need() { # COMMAND WHAT-TO-DO
  command -v "$1" >/dev/null || die "$1 is missing: $2"
}

usage() { die "usage: $0 start DIR [key=value...] | stop DIR"; }

# once MARK COMMAND...: runs the command unless the mark says that it was done; others wait for it.
once() {
  local mark=$1; shift
  [ -f "$mark" ] && return 0
  mkdir -p "$(dirname "$mark")"
  exec 8>"$mark.lock"; flock 8
  if [ ! -f "$mark" ]; then
    "$@" > "$mark.log" 2>&1 || { tail -15 "$mark.log" >&2; die "installing failed; the whole log is $mark.log"; }
    touch "$mark"
  fi
  exec 8>&-
}

# python_env HOME REQUIREMENTS: makes HOME/venv anew, a Python environment with these packages. Whoever calls sees to it
# that nobody else does so at the same time. (DuckDB has no wheels for a Python newer than 3.13.)
python_env() {
  local home=$1 log=$1/install.log base="" candidate
  for candidate in "${PYTHON:-}" python3.13 python3.12 python3.11 python3.10 python3; do
    [ -n "$candidate" ] || continue
    if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      base=$candidate
      break
    fi
  done
  [ -n "$base" ] || die "no Python 3.10 to 3.13 found; install one, or name it in \$PYTHON"
  rm -rf "$home/venv" "$home/installed"
  "$base" -m venv "$home/venv" > "$log" 2>&1 \
    || die "'$base -m venv' failed (on Debian and Ubuntu: apt-get install python3-venv); see $log"
  printf '%s\n' "$2" > "$home/requirements.txt"
  "$home/venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: \
    -r "$home/requirements.txt" > "$log" 2>&1 \
    || die "pip could not install its packages (is the package index reachable?): $(tail -n 1 "$log"); see $log"
}

# find_jdk MIN [MAX]: the home of a JDK of such a version: that of JAVA_HOME or the PATH, else one of Debian's folder,
# the newest first. Nothing where there is none.
find_jdk() {
  local home version
  for home in ${JAVA_HOME:+"$JAVA_HOME"} "$(dirname "$(dirname "$(readlink -f "$(command -v javac || echo /x/x)")")")" \
    $(ls -d /usr/lib/jvm/* 2>/dev/null | sort -Vr); do
    [ -x "$home/bin/javac" ] || continue
    version=$("$home/bin/javac" -version 2>&1 | sed -E 's/javac ([0-9]+).*/\1/')
    [ "$version" -ge "$1" ] && [ "$version" -le "${2:-999}" ] && { echo "$home"; return; }
  done
  return 0
}

# Below the range that the kernel hands out, so that no outgoing connection takes it before the part binds it.
free_port() {
  local port
  for _ in $(seq 200); do
    port=$((10000 + (RANDOM * 32768 + RANDOM) % 22000))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
  done
  die "no free port"
}

# launch COMMAND...: in the background, away from our terminal and pipes.
launch() {
  setsid nohup "$@" > "$DIR/$NAME.log" 2>&1 < /dev/null &
  echo $! > "$DIR/$NAME.pid"
  if [ -n "${CALVE_PARTS_OWNER:-}" ]; then
    setsid nohup bash "$0" watch "$DIR" "$CALVE_PARTS_OWNER" > /dev/null 2>&1 < /dev/null &
  fi
}

# ready COMMAND...: waits until the command succeeds, at most 120 s, and not at all when the part died.
ready() {
  local pid; pid=$(cat "$DIR/$NAME.pid")
  for _ in $(seq 600); do
    "$@" > /dev/null 2>&1 && return 0
    kill -0 "$pid" 2>/dev/null || { tail -15 "$DIR/$NAME.log" >&2; die "ended while starting; log $DIR/$NAME.log"; }
    sleep 0.2
  done
  die "not ready after 120 s; log $DIR/$NAME.log"
}

stop() {
  local pid
  [ -f "$DIR/$NAME.pid" ] || return 0
  pid=$(cat "$DIR/$NAME.pid"); rm -f "$DIR/$NAME.pid"
  kill "$pid" 2>/dev/null || return 0
  for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || return 0; sleep 0.2; done
  kill -9 "$pid" 2>/dev/null || true
}

# main "$@": dispatches to the script's `start` (given key=value arguments) and, if it has one, `cleanup`.
main() {
  [ $# -ge 2 ] || usage
  local verb=$1; mkdir -p "$2"; DIR=$(cd "$2" && pwd); shift 2
  case $verb in
    start) stop; start "$@" ;;
    stop) stop; if declare -F cleanup > /dev/null; then cleanup; fi ;;
    watch)
      while kill -0 "$1" 2>/dev/null && [ -f "$DIR/$NAME.pid" ]; do sleep 1; done
      stop; if declare -F cleanup > /dev/null; then cleanup; fi ;;
    *) usage ;;
  esac
}
