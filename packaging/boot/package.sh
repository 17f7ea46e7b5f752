# Upgrade, removal and purge while the service runs, as docs/install.md describes.

step "upgrade: what runs is restarted, and works"
until_it 60 is ActiveState active
before=$(property MainPID)
printf '\n# Edited here.\n' >>$CONFIG/config.toml
person kim
leaves kim
dpkg --force-confold -i "$HERE/second.deb" >/dev/null 2>&1
until_it 60 is ActiveState active
is_not MainPID "$before" || fail "it was not restarted"
until_it 60 is_denied kim
must_be "enabled" "$(systemctl is-enabled $UNIT)" enabled
must_be "timer" "$(systemctl is-active okta-auth0-sync-check.timer)" active
tail -n 1 $CONFIG/config.toml | grep -q 'Edited here' || fail "the configuration was replaced"

step "an upgrade starts nothing that was stopped"
systemctl stop $UNIT
dpkg --force-confold -i "$HERE/first.deb" >/dev/null 2>&1
is ActiveState inactive || fail "it was started"
systemctl start $UNIT

step "remove: stopped, the state and the configuration stay"
said=$(dpkg -r okta-auth0-sync 2>&1)
must_say "$said" "marks in Auth0 stay"
must_be "service" "$(systemctl is-active $UNIT || true)" inactive
must_be "timer" "$(systemctl is-active okta-auth0-sync-check.timer || true)" inactive
[[ -e $STATE/state.db && -e $CONFIG/credentials/okta-api-token ]] || fail "state or credentials are gone"
is_denied kim || fail "the mark is gone"

step "installed again: it goes on where it stopped"
person lea
leaves lea
denied=$(sqlite3 -readonly $STATE/state.db 'SELECT denied FROM status')
apt-get install -y "$HERE/first.deb" >/dev/null 2>&1
must_be "enabled" "$(systemctl is-enabled $UNIT)" enabled
systemctl start $UNIT okta-auth0-sync-check.timer
until_it 60 is_denied lea
must_be "denied" "$(sqlite3 -readonly $STATE/state.db 'SELECT denied FROM status')" $((denied + 1))
must_say "$($SYNC audit verify 2>/dev/null)" "decision"

step "purge: configuration and credentials go, the state stays; all of it as before afterwards"
cp -a $CONFIG /var/lib/boot-test/config
said=$(dpkg -P okta-auth0-sync 2>&1)
must_say "$said" "the state is kept"
[[ ! -e $CONFIG ]] || fail "$CONFIG is there"
[[ -e $STATE/state.db ]] || fail "the state is gone"
must_be "left in systemd" "$(find /etc/systemd /run/systemd/system -name 'okta-auth0-sync*' ! -name '*.d' | head)" ""
systemctl daemon-reload
must_be "failed units" "$(systemctl --failed --plain --no-legend)" ""
apt-get install -y "$HERE/first.deb" >/dev/null 2>&1
must_be "enabled" "$(systemctl is-enabled $UNIT || true)" disabled
cp -a /var/lib/boot-test/config/. $CONFIG
systemctl enable --quiet --now $UNIT okta-auth0-sync-check.timer
until_it 60 text_says denied

# For the second boot: the denied accounts, and a unit that sets up the tenants before anything calls them.
$SYNC status --json 2>/dev/null >/var/lib/boot-test/status.json
sqlite3 -readonly $STATE/state.db 'SELECT denied FROM status' >/var/lib/boot-test/denied
