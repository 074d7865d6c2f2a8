#!/usr/bin/env bash
# Tests the room src/kernels alone, under AddressSanitizer: as a crate of its own, so that nothing else is built again.
# Usage: .ci/kernels.sh FOLDER, which is made.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
folder=$1
target=$(rustc -vV | sed -n 's/^host: //p')
mkdir -p "$folder/src"
cat >"$folder/Cargo.toml" <<'END'
[package]
name = "kernels"
version = "0.0.0"
edition = "2024"

[dev-dependencies]
proptest = { version = "1.12", default-features = false, features = ["std"] }

[lints.rust]
unsafe_code = "deny"

[workspace]
END
cat >"$folder/src/lib.rs" <<END
//! The room of kernels alone.
#[path = "$root/src/kernels/mod.rs"]
pub mod kernels;
END
cp "$root/rust-toolchain.toml" "$folder/"
cd "$folder"
# The sanitizer's runtime comes with the stable toolchain, whose flag asks for this variable.
RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address CARGO_TARGET_DIR=$folder/target \
  cargo test --release --lib --target "$target"
