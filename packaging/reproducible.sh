# Sourced by release builds, from the root of the source: the same source, compiler and linker give the same bytes, wherever
# the source and the crates are. docs/reproducible.md has the limits.

# Use the date of the last commit, not of the build.
if [[ -z "${SOURCE_DATE_EPOCH:-}" ]]; then
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)
fi
export SOURCE_DATE_EPOCH

# Panic messages name source files: take the build machine's paths out of them.
crates=${CARGO_HOME:-$HOME/.cargo}
remap="--remap-path-prefix=$PWD=/src --remap-path-prefix=$crates=/cargo"
export RUSTFLAGS="${RUSTFLAGS:+$RUSTFLAGS }$remap"
export CFLAGS="${CFLAGS:+$CFLAGS }-ffile-prefix-map=$PWD=/src -ffile-prefix-map=$crates=/cargo"
export LC_ALL=C TZ=UTC
umask 022
