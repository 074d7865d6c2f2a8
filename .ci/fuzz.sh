#!/usr/bin/env bash
# fuzz.sh SECONDS [TARGET…]: damaged input for every reader of foreign bytes, SECONDS for each (docs/fuzzing.md). What is found
# lies in fuzz/found.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=$1 && shift
# The same folder as the program's, so that other people's code is not compiled twice.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
cargo build --release --locked --manifest-path fuzz/Cargo.toml
"$CARGO_TARGET_DIR/release/sconce-fuzz" --seconds "$seconds" --seed "${SEED:-1}" "$@" | sed 's/^/measured: /'
