# An empty machine, the package, and a service that is not configured.

step "the machine is well before anything is installed"
until_it 120 systemctl is-system-running
saw "$(systemctl --version | head -n 1), $(uname -r)"

step "installing starts and enables nothing"
apt-get install -y "$HERE/first.deb" >/run/installed.txt 2>&1 || fail "$(<"/run/installed.txt")"
for unit in $UNIT okta-auth0-sync@acme.service okta-auth0-sync-check.timer okta-auth0-sync-check@acme.timer; do
    must_be "$unit enabled" "$(systemctl is-enabled "$unit" || true)" disabled
    must_be "$unit active" "$(systemctl is-active "$unit" || true)" inactive
done
for unit in $UNIT okta-auth0-sync@acme.service okta-auth0-sync-check.service okta-auth0-sync-check@acme.service \
    okta-auth0-sync-check.timer okta-auth0-sync-check@acme.timer; do
    must_be "what systemd says of $unit" "$(systemd-analyze verify --man=no "$unit" 2>&1)" ""
done
must_be "what says it needs attention" "$(systemctl --failed --plain --no-legend)" ""

step "not configured: it fails once, says why, is not tried again, and OnFailure= is told"
cat >/run/systemd/system/told@.service <<'END'
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'echo %i >>/run/told'
END
dropin $UNIT told <<<$'[Unit]\nOnFailure=told@%n.service'
since
if systemctl enable --now $UNIT 2>/run/said.txt; then fail "it started"; fi
must_say "$(</run/said.txt)" "systemctl status"
must_be "exit code" "$(property ExecMainStatus)" 78
must_be "state" "$(property ActiveState)" failed
said=$(systemctl status --no-pager --full $UNIT || true)
must_say "$said" "systemd did not pass this credential"
must_say "$said" "/etc/okta-auth0-sync/credentials/okta-api-token"
saw "$(grep 'error:' <<<"$said")"
must_say "$(journalctl --no-pager -o cat -p err --since "$moment" _SYSTEMD_UNIT=$UNIT)" "okta.api_token_file"
until_it 30 test -s /run/told
must_be "who was told" "$(</run/told)" $UNIT
# Longer than RestartSec=.
sleep 15
must_be "restarts" "$(property NRestarts)" 0
said=$($SYNC check --offline || true)
must_say "$said" "is the example value"
must_say "$said" "file not found: /etc/okta-auth0-sync/credentials/okta-api-token"
systemctl disable --quiet $UNIT
systemctl reset-failed $UNIT
rm /run/told
# As if the service had never been started.
rm -r /var/lib/private/okta-auth0-sync /var/lib/okta-auth0-sync
