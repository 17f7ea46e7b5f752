#!/usr/bin/env bash
# Builds the Debian package: target/debian/okta-auth0-sync_VERSION_ARCHITECTURE.deb, whose path is the last line printed.
#
#   packaging/build-deb.sh [options of cargo deb, such as --deb-revision 2 or --maintainer "Name <address>"]
#
# Needs cargo, a C compiler and dpkg-dev (which finds the program's dependencies); installs cargo-deb if it is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=packaging/reproducible.sh
source packaging/reproducible.sh

command -v dpkg-shlibdeps >/dev/null || { echo "needs dpkg-shlibdeps: apt-get install dpkg-dev" >&2; exit 1; }
command -v cargo-deb >/dev/null || env -u RUSTFLAGS -u CFLAGS cargo install --locked cargo-deb

# Without the sandbox: packages contain no stand-ins of the tenants and no JavaScript engine.
cargo build --release --locked --package okta-auth0-sync --no-default-features

# The program writes its own manual pages and completions.
program=target/release/okta-auth0-sync
made=target/package
mkdir -p "$made/man" "$made/completions"
find "$made/man" -name '*.1' -delete
"$program" man --dir "$made/man"
for shell in bash zsh fish; do
    "$program" completions "$shell" >"$made/completions/$shell"
done
packaging/third-party.sh | gzip -9n >"$made/THIRD-PARTY.gz"

# Debian's changelog names the package's version only; CHANGELOG.md, which is in the package too, lists the changes.
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
maintainer=$(sed -n 's/^maintainer = "\(.*\)"$/\1/p' Cargo.toml)
cat >"$made/changelog" <<END
okta-auth0-sync ($version-1) stable; urgency=medium

  * Version $version: see changelog.gz beside this file.

 -- $maintainer  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
END

cargo deb --no-build --locked "$@"
