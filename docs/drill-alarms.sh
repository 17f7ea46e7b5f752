#!/usr/bin/env bash
# Plays the alarms of docs/operations.md that need no simulated time, on the embedded tenants, with the daemon: provokes each, finds it in
# `status`, in the webhook's messages and in the log, fixes its cause as its section says, and finds it cleared.
#
#   cargo build && docs/drill-alarms.sh [--quick] [path of okta-auth0-sync]
#
# Takes about six minutes, mostly waiting for a late poll and a late denial; --quick skips these two, and remote_down, which
# takes a minute. Needs curl. Uses loopback and a temporary folder only. Exits 1 if an alarm is not reported or not cleared.
set -euo pipefail

quick=
if [ "${1:-}" = --quick ]; then
    quick=yes
    shift
fi
program=$(realpath "${1:-target/debug/okta-auth0-sync}")
top=$(mktemp -d)
trap 'for file in "$top"/*/pids; do while read -r pid; do kill "$pid" 2>/dev/null || true; done <"$file"; done; rm -rf "$top"' EXIT

# --- what every scenario needs: tenants, a configuration, a daemon

okta_auth0_sync() { "$program" "$@" 2>>commands.log; }
set_up() { # more settings, as environment variables without their prefix
    "$program" sandbox >sandbox.txt 2>/dev/null &
    echo $! >>pids
    until grep -q '^path' sandbox.txt; do kill -0 $!; done
    okta=$(sed -n 's/^url = "\(.*\)"/\1/p' sandbox.txt | head -n 1)
    auth0=$(sed -n 's/^url = "\(.*\)"/\1/p' sandbox.txt | tail -n 1)
    sed -n '/^\[okta\]/,/^path/p' sandbox.txt >config.toml
    printf '[schedule]\npoll = "* * * * * *"\n[alert]\nwebhook_url = "%s/_sandbox/inbox"\n' "$okta" >>config.toml
    chmod 600 config.toml
    local setting
    for setting in "$@"; do export "OKTA_AUTH0_SYNC__${setting?}"; done
    start
}
start() {
    "$program" run 2>>daemon.log &
    daemon=$!
    echo "$daemon" >>pids
    wait_for "the daemon" has_started
}
has_started() { kill -0 "$daemon" 2>/dev/null && [ "$(grep -c event=started daemon.log)" -gt "${starts:-0}" ]; }
stop() {
    starts=$(grep -c event=started daemon.log)
    kill "$daemon"
    wait "$daemon"
}
restart() { stop && start; }
wait_for() { # description, and the command that succeeds when it is true
    local what=$1 until=$((SECONDS + ${patience:-120}))
    shift
    until "$@"; do
        if [ $SECONDS -gt $until ]; then
            echo "NOT seen: $what" >&2
            okta_auth0_sync status >&2 || true
            tail -n 5 daemon.log commands.log >&2
            return 1
        fi
        sleep 0.2
    done
}
has_account() { # name, more attributes: creates an account in Auth0
    curl -sf "$auth0/_sandbox/users" \
        -d "{\"email\":\"$1@example.com\",\"connection\":\"Username-Password-Authentication\"${2:-}}" |
        sed 's/.*"user_id":"auth0|\([^"]*\)".*/auth0%7C\1/' >"account-of-$1"
}
account() { cat "account-of-$1"; } # name: the id of that account, percent-encoded
new_user() { # name: creates a user in Okta and an account in Auth0; prints the user's id
    has_account "$1"
    curl -sf "$okta/_sandbox/users" -d "{\"login\":\"$1@example.com\"}" | sed 's/.*"id":"\([^"]*\)".*/\1/'
}
in_okta() { curl -sf -X POST "$okta/_sandbox/users/$1/$2" -d "${3:-}" -o /dev/null; }
fault() { curl -sf "$1/_sandbox/faults" -d "$2" -o /dev/null; }
clear_faults() { curl -sf -X DELETE "$1/_sandbox/faults" -o /dev/null; }
looked_at() { okta_auth0_sync user "$1" --json | grep -q '"outcome": "[a-z]'; }

# --- where an alarm shows

in_status() { okta_auth0_sync status --json | sed -n '/^  "alarms": \[/,/^  \]/p' | grep -q "\"kind\": \"$1\""; }
not_in_status() { ! in_status "$1"; }
message() { # kind, raised or over: is it in the webhook's messages, with its text and a remedy?
    curl -sf "$okta/_sandbox/inbox" | tr '{' '\n' | grep "\"kind\":\"$1\"" | grep "\"event\":\"$2\"" |
        grep "\"text\":\"okta-auth0-sync [^\"]*$1" | grep -q '"remedy":"[^"]'
}
after_reconcile() { okta_auth0_sync reconcile --all >/dev/null && "$@"; }
in_log() { grep -Eq "event=$1\"?( |$)" daemon.log; }
in_any_log() { grep -Eq "event=$1\"?( |$)" daemon.log commands.log; }
is_raised() { # kind, and its log event, if it has one
    wait_for "$1 in status" in_status "$1"
    wait_for "$1 in the webhook" message "$1" raised
    [ -z "${2:-}" ] || wait_for "$1 in the log as $2" in_log "$2"
}
is_cleared() {
    wait_for "the end of $1 in status" not_in_status "$1"
    wait_for "the end of $1 in the webhook" message "$1" over
    echo "$1: raised, fixed, cleared"
}
is_momentary() { # kind, and its log event: raised and cleared at once
    wait_for "$1 in the webhook" message "$1" raised
    [ -z "${2:-}" ] || wait_for "$1 in the log as $2" in_log "$2"
    not_in_status "$1"
    echo "$1: raised, and cleared at once"
}

# --- the scenarios, which run in parallel

users() {
    # The event stream would restore a mark before the command does.
    set_up ENGINE__MAX_ATTEMPTS=1 AUTH0__EVENTS=never 'SCOPE__EXEMPT=["exempt@example.com"]'
    local name
    declare -A id
    for name in held failed exempt restored unknown mirror; do id[$name]=$(new_user "$name"); done
    for name in held unknown; do wait_for "$name" looked_at "$name@example.com"; done

    in_okta "${id[held]}" hide
    okta_auth0_sync retry "${id[held]}" >/dev/null || true
    fault "$auth0" "{\"method\":\"PATCH\",\"path\":\"/api/v2/users/$(account failed)\",\"effect\":{\"kind\":\"status\",\"code\":500}}"
    in_okta "${id[failed]}" deactivate
    curl -sf "$okta/_sandbox/events" -o /dev/null \
        -d '{"uuid":"drill-1","published":"not a time","eventType":"user.lifecycle.deactivate","target":null}'
    in_okta "${id[exempt]}" deactivate
    in_okta "${id[restored]}" deactivate
    wait_for "a denial" okta_auth0_sync user restored@example.com --sync >/dev/null
    for _ in 1 2 3; do
        curl -sf -X PUT "$auth0/_sandbox/users/$(account restored)" -d '{"app_metadata":{}}' -o /dev/null
        okta_auth0_sync user restored@example.com --sync >/dev/null
    done
    in_okta "${id[unknown]}" status '{"status":"FROZEN"}'
    okta_auth0_sync user unknown@example.com --sync >/dev/null
    fault "$auth0" "{\"method\":\"PATCH\",\"path\":\"/api/v2/users/$(account mirror)\",\"times\":1,\"effect\":{\"kind\":\"status\",\"code\":400}}"
    in_okta "${id[mirror]}" deactivate
    is_raised held held
    is_raised failed failed
    is_raised quarantined quarantined
    is_raised exempt_left 'alarm .*kind="?exempt_left'
    is_raised restored 'alarm .*kind="?restored'
    is_raised unknown_status 'alarm .*kind="?unknown_status'
    is_raised mirror_refused mirror_refused

    in_okta "${id[held]}" show
    okta_auth0_sync retry held@example.com >/dev/null
    is_cleared held
    clear_faults "$auth0"
    okta_auth0_sync retry --failed >/dev/null
    is_cleared failed
    okta_auth0_sync events --state quarantined >/dev/null
    okta_auth0_sync approve drill-1 >/dev/null
    is_cleared quarantined
    okta_auth0_sync user restored@example.com --sync >/dev/null
    is_cleared restored
    okta_auth0_sync user mirror@example.com --sync >/dev/null
    is_cleared mirror_refused
    # There is no newer version here: Okta returns to a status that this one knows.
    in_okta "${id[unknown]}" status '{"status":"ACTIVE"}'
    okta_auth0_sync user unknown@example.com --sync >/dev/null
    is_cleared unknown_status
    # Off the list: the changed configuration starts a full reconcile.
    export 'OKTA_AUTH0_SYNC__SCOPE__EXEMPT=[]'
    restart
    is_cleared exempt_left
}

guard() {
    set_up GUARD__MAX_DENIALS=0
    in_okta "$(new_user guard)" deactivate
    is_raised guard 'alarm .*kind="?guard'
    okta_auth0_sync events >/dev/null
    okta_auth0_sync approve --all --yes >/dev/null
    is_cleared guard
}

flow() {
    set_up
    has_account flag ',"user_metadata":{"okta":{"deactivated":"true"}}'
    curl -sf "$auth0/_sandbox/action" -d '{"bound":false}' -o /dev/null
    stop
    # Auth0's search lags behind a new account.
    wait_for "the flag in a reconcile" after_reconcile in_status foreign_flag
    start
    is_raised foreign_flag
    # The reconcile by hand found it.
    wait_for "foreign_flag in the log" in_any_log 'alarm .*kind="?foreign_flag'
    is_raised action_missing action_missing
    okta_auth0_sync action deploy --yes >/dev/null
    okta_auth0_sync action check >/dev/null
    curl -sf -X PUT "$auth0/_sandbox/users/$(account flag)" -o /dev/null \
        -d '{"user_metadata":{"okta":{"deactivated":"false"}}}'
    stop
    wait_for "a reconcile without the flag" after_reconcile not_in_status foreign_flag
    start
    is_cleared foreign_flag
    is_cleared action_missing
}

sessions() {
    set_up AUTH0__END_SESSIONS=true
    fault "$auth0" '{"method":"DELETE","effect":{"kind":"status","code":404}}'
    in_okta "$(new_user sessions)" deactivate
    is_raised sessions_unavailable 'alarm .*kind="?sessions_unavailable'
    export OKTA_AUTH0_SYNC__AUTH0__END_SESSIONS=false
    restart
    is_cleared sessions_unavailable
}

okta_log() {
    set_up
    curl -sf -X POST "$okta/_sandbox/token/revoke" -o /dev/null
    is_raised remote_refuses remote_refuses
    okta_auth0_sync check >/dev/null || true
    curl -sf -X POST "$okta/_sandbox/token/restore" -o /dev/null
    is_cleared remote_refuses
    fault "$okta" '{"path":"/api/v1/logs","effect":{"kind":"next_link_origin","origin":"https://elsewhere.example"}}'
    is_raised foreign_next foreign_next
    clear_faults "$okta"
    is_cleared foreign_next
    fault "$okta" '{"path":"/api/v1/logs","times":2,"effect":{"kind":"status","code":400}}'
    is_momentary reanchored reanchored
}

slow() {
    set_up
    local id patience=400
    id=$(new_user late)
    wait_for "a first pass" looked_at late@example.com
    fault "$okta" '{"path":"/api/v1/logs","effect":{"kind":"drop"}}'
    in_okta "$id" deactivate
    is_raised remote_down remote_down
    is_raised poll_late poll_failed
    clear_faults "$okta"
    is_momentary denial_late 'alarm .*kind="?denial_late'
    is_cleared remote_down
    is_cleared poll_late
}

scenarios="users guard flow sessions okta_log"
[ -n "$quick" ] || scenarios="$scenarios slow"
declare -A playing
for scenario in $scenarios; do
    mkdir "$top/$scenario"
    (cd "$top/$scenario" && "$scenario") &
    playing[$scenario]=$!
done
failed=0
for scenario in $scenarios; do
    wait "${playing[$scenario]}" || { echo "FAILED: the scenario $scenario" >&2; failed=1; }
done
[ "$failed" = 1 ] || echo "each of these alarms was provoked, reported, fixed and cleared"
exit "$failed"
