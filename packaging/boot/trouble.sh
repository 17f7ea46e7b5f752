# Failures around a working service: outages, kills, a loop that hangs.

restarts_are() { [[ $(property NRestarts) -ge $1 ]]; }

step "Okta cannot be reached when it starts: ready all the same"
systemctl stop $UNIT
fault okta '{"effect":{"kind":"drop"}}'
since
systemctl start $UNIT
is_active || fail "it did not start"
until_it 60 text_says "failed to poll the System Log"
must_say "$(property StatusText)" "1 denied, 0 pending; failed to poll the System Log"
must_be "unread log is told as a warning" "$(journalctl --no-pager -o cat -p warning --since "$moment" _SYSTEMD_UNIT=$UNIT | grep -c event=poll_failed)" 1
person cay
leaves cay
well
until_it 60 is_denied cay
logged_is event=poll_back || fail "nothing says that it is back"

step "SIGKILL: started again, nothing lost"
rm -f /run/told
fault okta '{"method":"GET","path":"/api/v1/logs","effect":{"kind":"drop"}}'
person dan
leaves dan
systemctl kill --signal=KILL $UNIT
until_it 60 restarts_are 1
until_it 60 is_active
well
until_it 60 is_denied dan
must_be "restarts" "$(property NRestarts)" 1
[[ ! -e /run/told ]] || fail "OnFailure= was told of a service that lives"

step "a body that never ends: the watchdog kills it, and it is started again"
dropin $UNIT short <<<$'[Service]\nWatchdogSec=20\nRestartSec=1'
systemctl restart $UNIT
until_it 60 text_says denied
person eve
since
fault okta '{"method":"GET","path":"/api/v1/logs","effect":{"kind":"stall_body"}}'
leaves eve
until_it 90 restarts_are 1
well
must_say "$(logged)" "the poller makes no progress"
must_say "$(logged)" "Watchdog timeout (limit 20s)!"
until_it 90 is_denied eve

step "a loop that hangs for ever (debug build), each of the three"
for loop in poller applier reconciler; do
    dropin $UNIT hangs <<END
[Service]
ExecStart=
ExecStart=$HERE/sandbox run
Environment=OKTA_AUTH0_SYNC_TEST_WEDGE=$loop
# A hanging loop does not stop cleanly either.
TimeoutStopSec=2
END
    since
    systemctl restart $UNIT
    until_it 120 logged_is "Watchdog timeout (limit 20s)!"
    must_say "$(logged)" "the $loop makes no progress"
    until_it 60 restarts_are 1
done
undo_dropin $UNIT hangs
undo_dropin $UNIT short
systemctl restart $UNIT
person fay
leaves fay
until_it 60 is_denied fay
