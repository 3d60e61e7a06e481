# Shared by the scripts beside it: `source` it, do not run it.
# shellcheck shell=bash

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
exec </dev/null

# Everything that the scripts build or install for themselves lands below the target directory.
target=${CARGO_TARGET_DIR:-$root/target}
mkdir -p "$target"
target=$(cd "$target" && pwd)
tools=$target/tools

say() { printf '==> %s\n' "$*"; }

die() {
    printf 'Error: %s\n' "$*" >&2
    exit 1
}

# Servers are where only root looks.
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

# need_packages COMMAND=PACKAGE...: installs the Debian packages of the commands that are missing.
need_packages() {
    local pair missing=() names=()
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null || {
            missing+=("${pair%%=*}")
            names+=("${pair#*=}")
        }
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "${missing[*]} missing, and there is no apt-get to install ${names[*]} with"
    [ "$(id -u)" = 0 ] || die "${missing[*]} missing: as root, run: apt-get install ${names[*]}"
    say "installing ${names[*]}"
    # Scripts may run side by side.
    exec 8>"$target/apt.lock"
    flock 8
    # A package may start its service when it is installed; nothing here wants one on the usual port.
    local policy=/usr/sbin/policy-rc.d ours=
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
        ours=yes
    fi
    local installed=yes
    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${names[@]}"; } \
        >"$target/apt.log" 2>&1 || installed=
    [ -z "$ours" ] || rm -f "$policy"
    exec 8>&-
    [ -n "$installed" ] || {
        tail -n 20 "$target/apt.log" >&2
        die "apt-get could not install ${names[*]}"
    }
    hash -r
    for pair in "${missing[@]}"; do
        command -v "$pair" >/dev/null || die "$pair is still missing after installing ${names[*]}"
    done
}

# Python 3.9 or later for the scripts that speak MQTT themselves.
need_python() {
    need_packages python3=python3
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' || die "Python 3.9 or later is needed"
    export PYTHONPATH=$root/scripts/harness PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
}

# The debug builds of the program and of the examples. Together they have the features that the workspace's tests were built with;
# the program alone would be built again, with much that it needs.
build_programs() {
    CARGO_TARGET_DIR=$target cargo build --locked --workspace --bin mqtt --examples
}

# The program under test: that of the environment, or one built from this tree.
need_mqtt() {
    if [ -z "${MQTT_BIN:-}" ]; then
        say "building the mqtt program"
        build_programs
        MQTT_BIN=$target/debug/mqtt
    fi
    [ -x "$MQTT_BIN" ] || die "MQTT_BIN=$MQTT_BIN is no program"
    export MQTT_BIN
}

# The examples, likewise.
need_examples() {
    if [ -z "${EXAMPLES:-}" ]; then
        say "building the examples"
        build_programs
        EXAMPLES=$target/debug/examples
    fi
    [ -d "$EXAMPLES" ] || die "EXAMPLES=$EXAMPLES is no directory"
    export EXAMPLES
}

# The optimised programs of the stages, in release below the target directory: `mqtt-sim` and `hot`. Built by one command, what
# they share is built once.
build_optimised() {
    CARGO_TARGET_DIR=$target cargo build --locked --release -p mqtt-sim -p mqtt-benches --bin mqtt-sim --bin hot
}

# Installs a nightly toolchain if there is none, and builds the fuzz targets into $fuzz_bin, as `cargo fuzz build` does, without
# building that first.
build_fuzz_targets() {
    if ! cargo +nightly --version >/dev/null 2>&1; then
        command -v rustup >/dev/null || die "fuzzing needs a nightly toolchain, and there is no rustup to install one with"
        say "installing a nightly toolchain"
        rustup toolchain install nightly --profile minimal --no-self-update ||
            die "fuzzing needs a nightly toolchain, and rustup could not install one"
    fi
    say "building the fuzz targets"
    local host flag flags="--cfg fuzzing -Zsanitizer=address -Cpasses=sancov-module"
    for flag in simplifycfg-branch-fold-threshold=0 sanitizer-coverage-{level=4,inline-8bit-counters,pc-table,trace-compares,stack-depth}; do
        flags+=" -Cllvm-args=-$flag"
    done
    host=$(rustc -vV | sed -n 's/^host: //p')
    # With --target, build scripts and macros go without all this.
    RUSTFLAGS="$flags ${RUSTFLAGS:-}" cargo +nightly build --locked --release --manifest-path fuzz/Cargo.toml \
        --target-dir "$target/fuzz" --target "$host"
    fuzz_bin=$target/fuzz/$host/release
}

# run_parts FUNCTION PART...: calls the function for each part, as many at once as there are cores (at_once=N for N), and prints what
# each said when it is done. Puts those that failed into `failed`.
run_parts() {
    local run=$1 part said
    shift
    said=$(mktemp -d)
    for part; do
        while [ "$(jobs -rp | wc -l)" -ge "${at_once:-$(nproc)}" ]; do wait -n || true; done
        (
            status=0
            ("$run" "$part") >"$said/$part" 2>&1 9>&- || status=$?
            flock 9
            cat "$said/$part"
            [ "$status" -ne 0 ] || touch "$said/$part.passed"
        ) 9>"$said/.lock" &
    done
    wait
    failed=()
    for part; do
        # Whatever did not come to its end has failed.
        [ -e "$said/$part.passed" ] || failed+=("$part")
    done
    rm -rf "$said"
}
