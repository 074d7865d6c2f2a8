#!/usr/bin/env bash
# Tests the room src/kernels alone, as a crate of its own, so that nothing else is built again:
#   address   under AddressSanitizer, on every set of instructions of this processor
#   miri      a part of the tests under Miri, on the portable set
#   aarch64   all tests on NEON, under qemu
# Usage: .ci/kernels.sh address|miri|aarch64 FOLDER, which is made. For aarch64 a linker aarch64-linux-gnu-gcc with its C
# library and qemu-aarch64 must be there. The exit code is 75 where a toolchain is not there and cannot be fetched.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
way=$1
folder=$2
# Miri comes with nightly toolchains alone. This one is near the toolchain of the project.
nightly=nightly-2026-05-20
mkdir -p "$folder/src"
cat >"$folder/Cargo.toml" <<'END_OF_MANIFEST'
[package]
name = "kernels"
version = "0.0.0"
edition = "2024"

[dev-dependencies]
proptest = { version = "1.12", default-features = false, features = ["std"] }

[lints.rust]
unsafe_code = "deny"

[workspace]
END_OF_MANIFEST
cat >"$folder/src/lib.rs" <<END_OF_CRATE
//! The room of kernels alone.
#[path = "$root/src/kernels/mod.rs"]
pub mod kernels;
END_OF_CRATE
cp "$root/rust-toolchain.toml" "$folder/"
cd "$folder"
export CARGO_TARGET_DIR=$folder/target

address() {
  local target
  target=$(rustc -vV | sed -n 's/^host: //p')
  # The sanitizer's runtime comes with the stable toolchain, whose flag asks for this variable.
  RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address cargo test --release --lib --target "$target"
}

# Without tests that end before any pointer is used, or whose loops the others run too: all would take twice as long.
miri() {
  if ! rustup run "$nightly" cargo miri --version \
    && ! rustup toolchain install "$nightly" --profile minimal --component miri,rust-src --no-self-update; then
    echo "Miri needs the toolchain $nightly, and it could not be installed" >&2
    exit 75
  fi
  MIRIFLAGS=-Zmiri-disable-isolation cargo "+$nightly" miri test --lib -- \
    --skip refused --skip functions_equal --skip an_item_is_the_same --skip every_remainder --skip every_width --skip maps_must_lie
}

aarch64() {
  local target=aarch64-unknown-linux-gnu
  if ! rustup target add "$target"; then
    echo "the standard library for $target could not be installed" >&2
    exit 75
  fi
  CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu" \
    cargo test --release --lib --target "$target"
}

case $way in
  address | miri | aarch64) "$way" ;;
  *) echo "there is no '$way'; there are address, miri and aarch64" >&2 && exit 64 ;;
esac
