# Two installations on one machine, by the template.

acme=okta-auth0-sync@acme.service
globex=okta-auth0-sync@globex.service

step "@acme and @globex: their own tenants, configuration, secrets and state"
systemctl stop $UNIT
mv $STATE /var/lib/boot-test/state
rm /var/lib/okta-auth0-sync
tenants_start tenants-acme 9201
tenants_start tenants-globex 9101
for name in acme globex; do
    install -d -m 0755 $CONFIG/$name
    dpkg-deb --fsys-tarfile "$HERE/first.deb" | tar -xO ./etc/okta-auth0-sync/config.toml >$CONFIG/$name/config.toml
done
configure $CONFIG/acme tenants-acme
configure $CONFIG/globex tenants-globex
systemctl start $acme $globex
for name in acme globex; do
    unit=okta-auth0-sync@$name.service
    is ActiveState active $unit || fail "$unit did not start"
    must_be "state of $name" "$(stat -c %a $STATE/$name)" 700
    must_be "owner of its state" "$(stat -c %u $STATE/$name/state.db)" "$(stat -c %u "/proc/$(property MainPID $unit)")"
done
[[ $(stat -c %u $STATE/acme) != $(stat -c %u $STATE/globex) ]] || fail "they share a user"
tenants=tenants-acme person ida
tenants=tenants-globex person jon
tenants=tenants-acme leaves ida
tenants=tenants-globex leaves jon
acme_denies() { tenants=tenants-acme is_denied ida; }
until_it 60 acme_denies
globex_denies() { tenants=tenants-globex is_denied jon; }
until_it 60 globex_denies
must_be "denied by acme" "$(sqlite3 -readonly $STATE/acme/state.db 'SELECT count(*) FROM denied WHERE email LIKE "ida%"')" 1
must_be "denied by globex" "$(sqlite3 -readonly $STATE/globex/state.db 'SELECT email FROM denied')" jon@example.com
must_say "$(OKTA_AUTH0_SYNC_CONFIG=$CONFIG/acme/config.toml OKTA_AUTH0_SYNC__STORE__PATH=$STATE/acme/state.db $SYNC status 2>/dev/null)" "All well"

step "one of them is in trouble: the other's timer is content"
since
systemctl start okta-auth0-sync-check@acme.service
okta_of_globex() { tenants=tenants-globex okta "$@"; }
okta_of_globex token/revoke -X POST -o /dev/null
refused() { is StatusText "$(property StatusText $globex)" $globex && property StatusText $globex | grep -q "needs attention"; }
until_it 120 refused
if systemctl start okta-auth0-sync-check@globex.service 2>/dev/null; then fail "content, though it is refused"; fi
systemctl start okta-auth0-sync-check@acme.service
systemctl reset-failed okta-auth0-sync-check@globex.service
okta_of_globex token/restore -X POST -o /dev/null

step "an upgrade restarts each that runs"
before="$(property MainPID $acme) $(property MainPID $globex)"
dpkg --force-confold -i "$HERE/second.deb" >/dev/null 2>&1
for unit in $acme $globex; do until_it 60 is ActiveState active $unit; done
for pid in $before; do [[ ! -e /proc/$pid ]] || fail "$pid was not restarted"; done
is ActiveState inactive || fail "the upgrade started what did not run"

systemctl stop $acme $globex tenants-acme tenants-globex
rm -r $CONFIG/acme $CONFIG/globex $STATE /var/lib/okta-auth0-sync
mv /var/lib/boot-test/state $STATE
ln -s private/okta-auth0-sync /var/lib/okta-auth0-sync
dpkg --force-confold -i "$HERE/first.deb" >/dev/null 2>&1
systemctl start $UNIT
