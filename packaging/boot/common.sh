# Sourced by the steps that run in the machine: checks, waits, and the users of the tenants.

readonly UNIT=okta-auth0-sync.service
readonly SYNC=/usr/bin/okta-auth0-sync
readonly STATE=/var/lib/private/okta-auth0-sync
readonly CONFIG=/etc/okta-auth0-sync
# This folder, which each boot unpacks again.
readonly HERE=/opt/boot

step() { printf -- '-- %s\n' "$*"; }
saw() { sed 's/^/   /' <<<"$*"; }
fail() {
    printf 'FAILED: %s\n' "$*"
    printf 'at:'; printf ' %s' "${FUNCNAME[@]:1}"; printf '\n'
    systemctl status --no-pager --full 'okta-auth0-sync*' tenants 2>&1 | tail -n 60 || true
    journalctl --no-pager -b -n 60 -o short-monotonic
    exit 1
}
must_say() { grep -qF -- "$2" <<<"$1" || fail "expected \"$2\" in: $1"; }
must_not_say() { if grep -qE -- "$2" <<<"$1"; then fail "not expected \"$2\" in: $1"; fi; }
must_be() { [[ "$2" == "$3" ]] || fail "$1 is \"$2\", not \"$3\""; }

# until_it SECONDS COMMAND…: waits until a command succeeds, at most SECONDS.
until_it() {
    # Emulation on a busy machine is slow, and these steps do not measure speed.
    local left=$(($1 * 5))
    shift
    until "$@" >/dev/null 2>&1; do
        ((left-- > 0)) || fail "did not come true in time: $*"
        sleep 1
    done
}

property() { systemctl show --value -p "$1" "${2:-$UNIT}"; }
is() { [[ "$(property "$1" "${3:-$UNIT}")" == "$2" ]]; }
is_not() { ! is "$@"; }
is_active() { is ActiveState active; }
text_says() { property StatusText | grep -qF -- "$1"; }
# What a unit has logged since the last call of `since`.
since() { moment=@$(date +%s.%N); }
logged() { journalctl --no-pager -o cat --since "$moment" -u "${1:-$UNIT}"; }
logged_is() { logged | grep -qF -- "$1"; }
# dropin UNIT NAME < text: adds a setting to a unit until the machine stops.
dropin() {
    mkdir -p "/run/systemd/system/$1.d"
    cat >"/run/systemd/system/$1.d/$2.conf"
    systemctl daemon-reload
}
undo_dropin() {
    rm "/run/systemd/system/$1.d/$2.conf"
    systemctl daemon-reload
}

# tenants_start [UNIT FIRST_PORT]: both tenants, in memory. Their addresses are in /run/UNIT.txt.
tenants_start() {
    local unit=${1:-tenants} port=${2:-9001}
    systemd-run --quiet --unit="$unit" -p "StandardOutput=truncate:/run/$unit.txt" \
        "$HERE/sandbox" sandbox --okta-port "$port" --auth0-port $((port + 1))
    until_it 120 grep -q '^path' "/run/$unit.txt"
}
# value KEY [N [UNIT]]: the n-th value of this name in the configuration that the tenants printed.
value() { sed -n "s/^$1 = \"\(.*\)\"/\1/p" "/run/${3:-tenants}.txt" | sed -n "${2:-1}p"; }
ask() { curl -sf --max-time 60 "$@"; }
okta() { ask "$(value url 1 "${tenants:-tenants}")/_sandbox/$1" "${@:2}"; }
auth0() { ask "$(value url 2 "${tenants:-tenants}")/_sandbox/$1" "${@:2}"; }
field() { sed "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/"; }

# A user in both tenants, and what happens to them in Okta. `tenants` selects the tenants, if there are several.
person() {
    mkdir -p /run/people
    okta users -d "{\"login\":\"$1@example.com\"}" | field id >"/run/people/$1.okta"
    auth0 users -d "{\"connection\":\"Username-Password-Authentication\",\"email\":\"$1@example.com\",\"password\":\"Secret-123\"}" |
        field user_id >"/run/people/$1.auth0"
}
leaves() { okta "users/$(<"/run/people/$1.okta")/deactivate" -X POST -o /dev/null; }
returns() { okta "users/$(<"/run/people/$1.okta")/activate" -X POST -o /dev/null; }
login() { auth0 login -d "{\"user_id\":\"$(<"/run/people/$1.auth0")\"}"; }
is_denied() { login "$1" | grep -q '"granted": *false'; }
is_let_in() { login "$1" | grep -q '"granted": *true'; }
fault() { "$1" faults -d "$2" -o /dev/null; }
well() { okta faults -X DELETE -o /dev/null && auth0 faults -X DELETE -o /dev/null; }

# configure FOLDER [UNIT OF TENANTS]: what an administrator does after the installation.
configure() {
    local folder=$1 from=${2:-tenants}
    sed -i -e "s|^url = \"https://acme.okta.com\"|url = \"$(value url 1 "$from")\"|" \
        -e "s|^url = \"https://acme.eu.auth0.com\"|url = \"$(value url 2 "$from")\"|" \
        -e "s|^#audience = .*|audience = \"$(value audience 1 "$from")\"|" \
        -e "s|^client_id = .*|client_id = \"$(value client_id 1 "$from")\"|" \
        -e 's|^#poll = .*|poll = "*/2 * * * * *"|' "$folder/config.toml"
    install -d -m 0700 "$folder/credentials"
    install -m 0600 /dev/stdin "$folder/credentials/okta-api-token" <<<"$(value api_token 1 "$from")"
    install -m 0600 /dev/stdin "$folder/credentials/auth0-client-secret" <<<"$(value client_secret 1 "$from")"
}
