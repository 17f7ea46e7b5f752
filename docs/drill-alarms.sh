#!/usr/bin/env bash
# Plays every alarm of docs/operations.md on the embedded tenants, with the daemon itself: provokes it, sees it in
# `status`, in the webhook's messages and in the log, mends it as its section says, and sees it end in both.
#
#   cargo build && docs/drill-alarms.sh [--quick] [path of okta-auth0-sync]
#
# Takes about six minutes, most of them spent waiting for a late poll and a late denial; --quick leaves out these two and
# remote_down, which lasts a minute. Needs curl. Everything happens on loopback and in a folder of its own, which is
# removed. Exits 1 if an alarm is not told, or does not end.
set -euo pipefail

quick=
if [ "${1:-}" = --quick ]; then
    quick=yes
    shift
fi
program=$(realpath "${1:-target/debug/okta-auth0-sync}")
top=$(mktemp -d)
trap 'for file in "$top"/*/pids; do while read -r pid; do kill "$pid" 2>/dev/null || true; done <"$file"; done; rm -rf "$top"' EXIT

# --- what every story needs: tenants, a configuration, a daemon

okta_auth0_sync() { "$program" "$@" 2>>commands.log; }
set_up() { # further settings, as environment variables without their prefix
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
    wait_for "the daemon" began
}
began() { kill -0 "$daemon" 2>/dev/null && [ "$(grep -c event=started daemon.log)" -gt "${starts:-0}" ]; }
stop() {
    starts=$(grep -c event=started daemon.log)
    kill "$daemon"
    wait "$daemon"
}
restart() { stop && start; }
wait_for() { # what, and the command that says that it is there
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
has_account() { # name, further attributes: an account of theirs in Auth0
    curl -sf "$auth0/_sandbox/users" \
        -d "{\"email\":\"$1@example.com\",\"connection\":\"Username-Password-Authentication\"${2:-}}" |
        sed 's/.*"user_id":"auth0|\([^"]*\)".*/auth0%7C\1/' >"account-of-$1"
}
account() { cat "account-of-$1"; } # name: the id of that account, as it stands in a path
person() { # name: somebody in both tenants; prints their id in Okta
    has_account "$1"
    curl -sf "$okta/_sandbox/users" -d "{\"login\":\"$1@example.com\"}" | sed 's/.*"id":"\([^"]*\)".*/\1/'
}
in_okta() { curl -sf -X POST "$okta/_sandbox/users/$1/$2" -d "${3:-}" -o /dev/null; }
fault() { curl -sf "$1/_sandbox/faults" -d "$2" -o /dev/null; }
well() { curl -sf -X DELETE "$1/_sandbox/faults" -o /dev/null; }
looked_at() { okta_auth0_sync user "$1" --json | grep -q '"outcome": "[a-z]'; }

# --- what is seen

in_status() { okta_auth0_sync status --json | sed -n '/^  "alarms": \[/,/^  \]/p' | grep -q "\"kind\": \"$1\""; }
not_in_status() { ! in_status "$1"; }
message() { # kind, raised or over: in the webhook's messages, with its text, and with a remedy
    curl -sf "$okta/_sandbox/inbox" | tr '{' '\n' | grep "\"kind\":\"$1\"" | grep "\"event\":\"$2\"" |
        grep "\"text\":\"okta-auth0-sync [^\"]*$1" | grep -q '"remedy":"[^"]'
}
compared() { okta_auth0_sync reconcile --all >/dev/null && "$@"; }
in_log() { grep -Eq "event=$1\"?( |$)" daemon.log; }
in_any_log() { grep -Eq "event=$1\"?( |$)" daemon.log commands.log; }
told() { # kind, and the event of the log that goes with it, if there is one
    wait_for "$1 in status" in_status "$1"
    wait_for "$1 in the webhook" message "$1" raised
    [ -z "${2:-}" ] || wait_for "$1 in the log as $2" in_log "$2"
}
over() {
    wait_for "the end of $1 in status" not_in_status "$1"
    wait_for "the end of $1 in the webhook" message "$1" over
    echo "$1: told, mended, over"
}
told_at_once() { # of what is over when it is told
    wait_for "$1 in the webhook" message "$1" raised
    [ -z "${2:-}" ] || wait_for "$1 in the log as $2" in_log "$2"
    not_in_status "$1"
    echo "$1: told, and over at once"
}

# --- the stories, side by side

people() {
    set_up ENGINE__MAX_ATTEMPTS=1 'SCOPE__EXEMPT=["exempt@example.com"]'
    local name
    declare -A id
    for name in held failed exempt restored unknown mirror; do id[$name]=$(person "$name"); done
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
    told held held
    told failed failed
    told quarantined quarantined
    told exempt_left 'alarm .*kind="?exempt_left'
    told restored 'alarm .*kind="?restored'
    told unknown_status 'alarm .*kind="?unknown_status'
    told mirror_refused mirror_refused

    in_okta "${id[held]}" show
    okta_auth0_sync retry held@example.com >/dev/null
    over held
    well "$auth0"
    okta_auth0_sync retry --failed >/dev/null
    over failed
    okta_auth0_sync events --state quarantined >/dev/null
    okta_auth0_sync approve drill-1 >/dev/null
    over quarantined
    okta_auth0_sync user restored@example.com --sync >/dev/null
    over restored
    okta_auth0_sync user mirror@example.com --sync >/dev/null
    over mirror_refused
    # No newer version here: Okta goes back to a status that this one knows.
    in_okta "${id[unknown]}" status '{"status":"ACTIVE"}'
    okta_auth0_sync user unknown@example.com --sync >/dev/null
    over unknown_status
    # Off the list: a new configuration has everybody compared.
    export 'OKTA_AUTH0_SYNC__SCOPE__EXEMPT=[]'
    restart
    over exempt_left
}

guard() {
    set_up GUARD__MAX_DENIALS=0
    in_okta "$(person guard)" deactivate
    told guard 'alarm .*kind="?guard'
    okta_auth0_sync events >/dev/null
    okta_auth0_sync approve --all >/dev/null
    over guard
}

flow() {
    set_up
    has_account flag ',"user_metadata":{"okta":{"deactivated":"true"}}'
    curl -sf "$auth0/_sandbox/action" -d '{"bound":false}' -o /dev/null
    stop
    # Auth0's search shows a new account after a while.
    wait_for "the flag in a comparison" compared in_status foreign_flag
    start
    told foreign_flag
    # It was a comparison by hand that found it.
    wait_for "foreign_flag in the log" in_any_log 'alarm .*kind="?foreign_flag'
    told action_missing action_missing
    okta_auth0_sync action deploy --yes >/dev/null
    okta_auth0_sync action check >/dev/null
    curl -sf -X PUT "$auth0/_sandbox/users/$(account flag)" -o /dev/null \
        -d '{"user_metadata":{"okta":{"deactivated":"false"}}}'
    stop
    wait_for "a comparison without the flag" compared not_in_status foreign_flag
    start
    over foreign_flag
    over action_missing
}

sessions() {
    set_up AUTH0__END_SESSIONS=true
    fault "$auth0" '{"method":"DELETE","effect":{"kind":"status","code":404}}'
    in_okta "$(person sessions)" deactivate
    told sessions_unavailable 'alarm .*kind="?sessions_unavailable'
    export OKTA_AUTH0_SYNC__AUTH0__END_SESSIONS=false
    restart
    over sessions_unavailable
}

okta_log() {
    set_up
    curl -sf -X POST "$okta/_sandbox/token/revoke" -o /dev/null
    told remote_refuses remote_refuses
    okta_auth0_sync check >/dev/null || true
    curl -sf -X POST "$okta/_sandbox/token/restore" -o /dev/null
    over remote_refuses
    fault "$okta" '{"path":"/api/v1/logs","effect":{"kind":"next_link_origin","origin":"https://elsewhere.example"}}'
    told foreign_next foreign_next
    well "$okta"
    over foreign_next
    fault "$okta" '{"path":"/api/v1/logs","times":2,"effect":{"kind":"status","code":400}}'
    told_at_once reanchored reanchored
    # The last good answer was long ago: the clock of the stand-in's answer says so.
    fault "$okta" "{\"path\":\"/api/v1/logs\",\"times\":1,\"effect\":{\"kind\":\"replace_header\",\"name\":\"date\",
        \"value\":\"$(LC_ALL=C date -u -d '-81 days' '+%a, %d %b %Y %H:%M:%S GMT')\"}}"
    wait_for "gap in the webhook" message gap raised
    wait_for "gap in the log" in_log gap
    over gap
}

slow() {
    set_up
    local id patience=400
    id=$(person late)
    wait_for "a first pass" looked_at late@example.com
    fault "$okta" '{"path":"/api/v1/logs","effect":{"kind":"drop"}}'
    in_okta "$id" deactivate
    told remote_down remote_down
    told poll_late poll_failed
    well "$okta"
    told_at_once denial_late 'alarm .*kind="?denial_late'
    over remote_down
    over poll_late
}

stories="people guard flow sessions okta_log"
[ -n "$quick" ] || stories="$stories slow"
declare -A playing
for story in $stories; do
    mkdir "$top/$story"
    (cd "$top/$story" && "$story") &
    playing[$story]=$!
done
failed=0
for story in $stories; do
    wait "${playing[$story]}" || { echo "NOT as it should be: the story $story" >&2; failed=1; }
done
[ "$failed" = 1 ] || echo "each of these alarms was provoked, told, mended, and ended"
exit "$failed"
