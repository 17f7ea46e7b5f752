#!/usr/bin/env bash
# Prints the licenses of every crate in the packaged program, as those licenses require of distributors.
set -euo pipefail
cd "$(dirname "$0")/.."

places=$(cargo metadata --locked --format-version 1 | grep -o '"manifest_path":"[^"]*"' | cut -d'"' -f4 | sort -u)

echo "okta-auth0-sync contains the following works. Each has its own license, which follows its name."
cargo tree --locked --package okta-auth0-sync --no-default-features --edges normal --prefix none --format '{p}|{l}' | sed 's/ (\*)$//' | sort -u |
    while IFS='|' read -r crate license; do
        name=${crate%% *}
        version=${crate#* v}
        version=${version%% *}
        [[ $name == okta-auth0-sync ]] && continue
        place=$(grep -E "/$name-${version//[.+]/.}/Cargo.toml\$" <<<"$places" | head -n 1)
        printf '\n%s\n%s %s: %s\n%s\n' "$(printf '=%.0s' {1..80})" "$name" "$version" "$license" "$(printf '=%.0s' {1..80})"
        find "${place%/Cargo.toml}" -maxdepth 1 -type f \
            \( -iname 'licen[sc]e*' -o -iname 'copying*' -o -iname 'notice*' -o -iname 'unlicense*' \) -print0 | sort -z |
            while IFS= read -r -d '' file; do
                printf '\n'
                cat "$file"
            done
    done
