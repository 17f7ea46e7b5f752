#!/usr/bin/env bash
# Provokes each rule of `status --check`, one after the other, on the embedded tenants, and shows its output.
#
#   cargo build && docs/drill-status.sh [path of okta-auth0-sync]
#
# The rules with deadlines are tested on a simulated clock instead. Needs curl. Uses loopback and a temporary folder only. Exits 1 if a provoked rule is not reported, or if anything else is.
set -euo pipefail

program=$(realpath "${1:-target/debug/okta-auth0-sync}")
folder=$(mktemp -d)
cd "$folder"
"$program" sandbox >sandbox.txt 2>/dev/null &
sandbox=$!
trap 'kill "$sandbox" 2>/dev/null || true; rm -rf "$folder"' EXIT
until grep -q '^path' sandbox.txt 2>/dev/null; do kill -0 "$sandbox"; done
okta=$(sed -n 's/^url = "\(.*\)"/\1/p' sandbox.txt | head -n 1)
auth0=$(sed -n 's/^url = "\(.*\)"/\1/p' sandbox.txt | tail -n 1)

# A fresh state, and a configuration with more lines.
fresh() {
    rm -f state.db*
    sed -n '/^\[okta\]/,/^path/p' sandbox.txt >config.toml
    printf '%s\n' "$@" >>config.toml
    chmod 600 config.toml
    curl -sf -X DELETE "$okta/_sandbox/faults" -o /dev/null
    curl -sf -X DELETE "$auth0/_sandbox/faults" -o /dev/null
    curl -sf -X POST "$okta/_sandbox/token/restore" -o /dev/null
}
sync() { "$program" sync >/dev/null 2>&1 || true; }
leaver() { # name: creates a user in both tenants and deactivates them
    local id token
    id=$(curl -sf "$okta/_sandbox/users" -d "{\"login\":\"$1@example.com\"}" | sed 's/.*"id":"\([^"]*\)".*/\1/')
    token=$(curl -sf "$auth0/oauth/token" -d grant_type=client_credentials -d client_id=sandbox-client \
        -d client_secret=sandbox-client-secret-not-a-secret --data-urlencode "audience=$auth0/api/v2/" |
        sed 's/.*"access_token":"\([^"]*\)".*/\1/')
    curl -sf "$auth0/api/v2/users" -H "Authorization: Bearer $token" -H 'Content-Type: application/json' -o /dev/null \
        -d "{\"connection\":\"Username-Password-Authentication\",\"email\":\"$1@example.com\",\"password\":\"Secret-123\"}"
    curl -sf -X POST "$okta/_sandbox/users/$id/deactivate" -o /dev/null
}
fault() { curl -sf -X POST "$1/_sandbox/faults" -d "$2" -o /dev/null; }

failed=0
# description, and the word that begins a line of `status --check`
expect() {
    local said code=0
    said=$("$program" status --check 2>/dev/null) || code=$?
    printf '%-34s exit %s  %s\n' "$1" "$code" "$(printf '%s' "$said" | tr '\n' ';')"
    if [ "$code" != 1 ] || ! printf '%s\n' "$said" | grep -q "^$2"; then
        failed=1
    fi
}

fresh
expect "nothing ever ran" never

fresh
sync
expect "the daemon is not running" daemon

fresh '[guard]' 'max_denials = 0'
leaver held
sync
expect "a user is held (guard)" held

fresh '[engine]' 'max_attempts = 1'
leaver failed
fault "$auth0" '{"method":"PATCH","path":"/api/v2/users","effect":{"kind":"status","code":500}}'
sync
expect "a user failed" failed

fresh
sync
curl -sf -X POST "$okta/_sandbox/token/revoke" -o /dev/null
sync
expect "Okta refuses our credential (401)" refus

fresh
sync
curl -sf -X POST "$okta/_sandbox/role" -d '{"logs":false,"users":true}' -o /dev/null
sync
expect "Okta refuses our role (403)" refus
curl -sf -X POST "$okta/_sandbox/role" -d '{"logs":true,"users":true}' -o /dev/null


# Last, because the event stays in the log.
fresh
curl -sf -X POST "$okta/_sandbox/events" -o /dev/null \
    -d '{"uuid":"drill-1","published":"not a time","eventType":"user.lifecycle.deactivate","target":null}'
sync
expect "an event cannot be read" quarantined

if [ "$failed" = 0 ]; then echo "each rule was provoked and reported"; else echo "FAILED: see above" >&2; fi
exit "$failed"
