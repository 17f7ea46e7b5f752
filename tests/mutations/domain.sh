#!/usr/bin/env bash
# Breaks each expression of src/domain/, and says which changes no test notices; needs cargo-mutants.
#
#   tests/mutations/domain.sh [OPTIONS OF cargo mutants…]
#
# src/domain/ is pure, so it is built as a package of its own, with its unit tests and the histories in memory: a few seconds
# for each change, where the whole program takes minutes. Ends with 2 when a change survives, 3 when one hangs.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT

mkdir -p "$copy/src" "$copy/tests/decisions" "$copy/.cargo"
cp -r "$root/src/domain" "$copy/src/domain"
cp "$root/tests/decisions/"{memory,model}.rs "$copy/tests/decisions/"
cp "$root/Cargo.lock" "$copy/"
cp "$root/.cargo/mutants.toml" "$copy/.cargo/"
printf 'pub mod domain;\n' >"$copy/src/lib.rs"
printf '#![allow(dead_code)]\nmod decisions {\n    mod memory;\n    mod model;\n}\n' >"$copy/tests/all.rs"
cat >"$copy/Cargo.toml" <<END
[package]
name = "okta-auth0-sync"
version = "0.1.0"
edition = "2024"

[workspace]

[dependencies]
okta-auth0-sync-clock = { path = "$root/crates/clock" }
jiff = "1"
serde_json = { version = "1", features = ["raw_value"] }

[dev-dependencies]
fastrand = "2"
proptest = "1"

[profile.dev]
opt-level = 1
debug = false
END
env --unset=CARGO_TARGET_DIR cargo mutants --dir "$copy" --output "${CARGO_TARGET_DIR:-$root/target}" --test-tool cargo "$@"
