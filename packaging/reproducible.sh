# Sourced by what builds something to be given away, from the root of the source: the same source, compiler and linker
# give the same bytes, wherever the source and the crates lie. docs/reproducible.md says how far that goes.

# The date of what is built is that of the last change, not of the build.
if [[ -z "${SOURCE_DATE_EPOCH:-}" ]]; then
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)
fi
export SOURCE_DATE_EPOCH

# Panic messages name source files. Nobody needs to know where they lay.
crates=${CARGO_HOME:-$HOME/.cargo}
remap="--remap-path-prefix=$PWD=/src --remap-path-prefix=$crates=/cargo"
export RUSTFLAGS="${RUSTFLAGS:+$RUSTFLAGS }$remap"
export CFLAGS="${CFLAGS:+$CFLAGS }-ffile-prefix-map=$PWD=/src -ffile-prefix-map=$crates=/cargo"
export LC_ALL=C TZ=UTC
umask 022
