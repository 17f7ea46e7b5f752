# Stopping the service.

step "asked to stop: in order, at once, and not started again"
since
begun=$SECONDS
systemctl stop $UNIT
saw "$((SECONDS - begun)) s"
((SECONDS - begun < 20)) || fail "it took $((SECONDS - begun)) s with nothing in flight"
must_be "how it ended" "$(property Result) $(property ExecMainStatus) $(property ActiveState)" "success 0 inactive"
must_say "$(logged)" "event=stopping"
must_say "$(logged)" "event=stopped"
[[ ! -e $STATE/state.db-wal ]] || fail "a WAL was left"
systemctl start $UNIT
until_it 60 text_says denied
kill -TERM "$(property MainPID)"
until_it 60 is ActiveState inactive
must_be "how it ended by a signal of somebody else" "$(property Result) $(property ExecMainStatus)" "success 0"

step "asked to stop in the middle of a call that hangs: within TimeoutStopSec="
systemctl start $UNIT
until_it 60 text_says denied
fault okta '{"method":"GET","path":"/api/v1/logs","effect":{"kind":"stall_body"}}'
stalls() { okta journal | tail -c 400 | grep -q '"path":"/api/v1/logs"'; }
until_it 60 stalls
begun=$SECONDS
systemctl stop $UNIT
saw "$((SECONDS - begun)) s"
must_be "how it ended" "$(property Result) $(property ExecMainStatus)" "success 0"
well
systemctl start $UNIT
