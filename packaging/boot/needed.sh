# The timer that checks whether an operator is needed, and the notification.

rm -f /run/told
step "the timer: content, then a person is needed, then content again"
check=okta-auth0-sync-check
is ActiveState active $check.timer || fail "the timer does not run"
dropin $check.timer soon <<<$'[Timer]\nOnBootSec=\nOnUnitActiveSec=\nOnActiveSec=1\nRandomizedDelaySec=0\nAccuracySec=1'
dropin $check.service told <<<$'[Unit]\nOnFailure=told@%n.service'
since
systemctl restart $check.timer
content() { logged $check.service | grep -q 'Finished' && is Result success $check.service; }
until_it 60 content
[[ ! -e /run/told ]] || fail "told of nothing"
okta events -o /dev/null \
    -d '{"uuid":"boot-1","published":"not a time","eventType":"user.lifecycle.deactivate","target":null}'
until_it 60 text_says quarantined
since
systemctl restart $check.timer
until_it 60 is Result exit-code $check.service
must_say "$(logged $check.service)" "quarantined"
until_it 30 test -s /run/told
must_be "who was told" "$(</run/told)" $check.service
must_say "$(property StatusText)" "needs attention"
$SYNC approve boot-1 >/dev/null 2>&1
systemctl start $check.service
is Result success $check.service || fail "still not content"
undo_dropin $check.timer soon
undo_dropin $check.service told
systemctl restart $check.timer
must_be "failed units" "$(systemctl --failed --plain --no-legend)" ""
