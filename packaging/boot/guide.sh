# Follows docs/getting-started.md as a new user would, with the sandbox in place of the tenants.

step "the secrets and the configuration, as the guide has them"
tenants_start
configure $CONFIG
must_be "its folder" "$(stat -c '%a %U' $CONFIG/credentials)" "700 root"
$SYNC check --offline >/dev/null || fail "$($SYNC check --offline)"

step "check, dry run, sync, comparison, by hand and before the service ever ran"
for who in ann bob; do person $who; done
leaves ann
said=$($SYNC check 2>/dev/null) || fail "$said"
must_say "$said" "Auth0 Action"
must_say "$($SYNC sync --dry-run 2>/dev/null)" "open → denied"
is_let_in ann || fail "a dry run denied"
must_not_say "$(ls /var/lib)" okta
install -d -m 0700 /var/lib/okta-auth0-sync
must_say "$($SYNC sync 2>/dev/null)" "1 account written"
is_denied ann || fail "not denied: $(login ann)"
$SYNC reconcile --all --dry-run >/dev/null 2>&1
$SYNC reconcile --all >/dev/null 2>&1
$SYNC action check >/dev/null 2>&1

step "enabled and started: ready, its line, its user, its folders"
since
systemctl enable --quiet --now $UNIT okta-auth0-sync-check.timer
must_be "state" "$(property ActiveState) $(property SubState)" "active running"
text_says_denied() { text_says "1 denied, 0 pending"; }
until_it 60 text_says_denied
said=$(systemctl status --no-pager --full $UNIT)
must_say "$said" 'Status: "1 denied, 0 pending"'
saw "$(grep -E 'Active:|Status:|Memory:' <<<"$said")"
pid=$(property MainPID)
owner=$(stat -c '%u %g' "/proc/$pid")
((${owner% *} >= 61184 && ${owner% *} <= 65519)) || fail "its user is $owner, no dynamic one"
must_be "leads to" "$(readlink /var/lib/okta-auth0-sync)" private/okta-auth0-sync
must_be "folder of the state" "$(stat -c '%a %u %g' $STATE)" "700 $owner"
for file in "$STATE"/*; do must_be "$file" "$(stat -c '%a %u %g' "$file")" "600 $owner"; done
must_be "its folder in /run" "$(stat -c '%a %u %g' /run/okta-auth0-sync)" "750 $owner"
# systemd passes the four missing credentials as empty files, and the service accepts that.
must_be "credentials" "$(ls $CONFIG/credentials)" $'auth0-client-secret\nokta-api-token'

step "the first denial, and back again"
leaves bob
until_it 60 is_denied bob
must_say "$($SYNC user bob@example.com 2>/dev/null)" "applied: open"
returns bob
until_it 60 is_let_in bob

step "the journal: priorities, and nothing said twice"
lines=$(journalctl --no-pager -o json --output-fields=PRIORITY,MESSAGE --since "$moment" _SYSTEMD_UNIT=$UNIT)
must_say "$lines" "event=started"
must_not_say "$(logged)" '^<[0-9]>|^[0-9]{4}-[0-9]{2}-[0-9]{2}T|INFO|WARN|'$'\033'
grep event=started <<<"$lines" | grep -q '"PRIORITY":"6"' || fail "started has another priority"
must_say "$(journalctl --no-pager -o cat -p warning --since "$moment" _SYSTEMD_UNIT=$UNIT)" "asks more often"
must_be "errors" "$(journalctl --no-pager -q -o cat -p err --since "$moment" _SYSTEMD_UNIT=$UNIT)" ""

step "status: for root, for nobody else, and of a copy"
must_say "$($SYNC status 2>/dev/null)" "All well"
$SYNC status --check >/dev/null 2>&1 || fail "status --check: $($SYNC status --check 2>&1)"
useradd --create-home visitor
code=0
said=$(runuser -u visitor -- $SYNC status 2>&1) || code=$?
must_be "exit code" $code 1
must_say "$said" "do this as root"
# A copy that can be read but not written, in a folder that cannot be written.
install -d -m 0755 /opt/copy
$SYNC backup /opt/copy/state.db >/dev/null 2>&1
chmod 0644 /opt/copy/state.db
must_say "$(runuser -u visitor -- env OKTA_AUTH0_SYNC__STORE__PATH=/opt/copy/state.db $SYNC status 2>/dev/null)" "accounts denied  1"
must_be "beside the copy" "$(ls /opt/copy)" state.db
must_be "the view" "$(sqlite3 -readonly $STATE/state.db 'SELECT denied, failed FROM status')" "1|0"

step "by hand while it is stopped: the files stay the service's"
systemctl stop $UNIT
must_say "$($SYNC sync 2>/dev/null)" "0 accounts written"
for file in "$STATE"/*; do must_be "$file" "$(stat -c '%u %g' "$file")" "$owner"; done
systemctl start $UNIT

step "a credential that is encrypted on the disk"
systemd-creds encrypt --with-key=host --name=okta-api-token $CONFIG/credentials/okta-api-token $CONFIG/okta-api-token.cred 2>/dev/null
rm $CONFIG/credentials/okta-api-token
dropin $UNIT encrypted <<<$'[Service]\nLoadCredentialEncrypted=okta-api-token:/etc/okta-auth0-sync/okta-api-token.cred'
systemctl restart $UNIT
leaves bob
until_it 60 is_denied bob
undo_dropin $UNIT encrypted
rm $CONFIG/okta-api-token.cred
configure $CONFIG
systemctl restart $UNIT
returns bob
until_it 60 is_let_in bob
