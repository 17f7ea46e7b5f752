#!/bin/sh
# The end-to-end benchmarks: builds the release binary, makes a Python environment for the two baselines (from PyPI), and
# measures all three against the stand-ins of both tenants. Options are handed on: benches/run.sh --help.
set -eu
cd "$(dirname "$0")/.."
cargo build --release --locked
venv=target/bench/venv
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet okta==3.4.6 auth0-python==6.8.0 httpx==0.28.1 uvloop==0.23.0
fi
exec "$venv/bin/python" benches/end_to_end.py "$@"
