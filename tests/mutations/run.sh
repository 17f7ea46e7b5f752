#!/usr/bin/env bash
# Breaks one rule after another in a copy of the program, and says whether the tests notice.
#
#   tests/mutations/run.sh [NAME…]
#
# Each *.patch beside this file is a rule broken on purpose; `expected` names the tests that have to fail for it. Ends with 1
# when one survives, does not apply any more, or does not build: then the patch has to follow the code.
# CARGO_TARGET_DIR says where it is built, and saves the first build; else that is a temporary directory as well.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$copy/target}
mkdir "$copy/tree"
(cd "$root" && tar -cf - --exclude=./target --exclude=./.git .) | tar -xf - -C "$copy/tree"
cd "$copy/tree"

wrong=0
told() {
    printf '%-36s %s\n' "$1" "$2"
    [[ $2 == caught* ]] || wrong=1
}
for patch in "$here"/*.patch; do
    grep -q "^$(basename "$patch" .patch) " "$here/expected" || told "$(basename "$patch" .patch)" "not in expected"
done
while read -r name tests; do
    [[ $name != "#" && -n $name ]] || continue
    [[ $# -eq 0 || " $* " == *" $name "* ]] || continue
    if ! patch --strip=1 --fuzz=0 --silent --dry-run <"$here/$name.patch" >/dev/null; then
        told "$name" "does not apply"
        continue
    fi
    patch --strip=1 --fuzz=0 --silent <"$here/$name.patch"
    # shellcheck disable=SC2086 # several arguments
    if ! cargo test --locked --no-run ${tests% *} >"$copy/log" 2>&1; then
        tail -n 30 "$copy/log" >&2
        told "$name" "does not build"
    # shellcheck disable=SC2086
    elif timeout 300 cargo test --locked $tests >"$copy/log" 2>&1; then
        told "$name" "SURVIVED: $tests"
    else
        first=$(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$copy/log" | sort)
        if [[ -n $first ]]; then
            told "$name" "caught by $(wc -l <<<"$first"): $(head -n 1 <<<"$first")"
        else
            told "$name" "no test failed, but the run did: hung, or crashed"
        fi
    fi
    patch --strip=1 --fuzz=0 --silent --reverse <"$here/$name.patch"
done <"$here/expected"
exit "$wrong"
