# The second boot: no command starts the service. The tenants live in memory, so they are set up again, with a user who left
# while the machine was down.

step "enabled, so it started by itself, before anybody can be reached"
until_it 120 systemctl is-system-running
must_be "state" "$(property ActiveState)" active
must_be "timer" "$(property ActiveState okta-auth0-sync-check.timer)" active
must_be "restarts" "$(property NRestarts)" 0
until_it 60 text_says "failed to poll the System Log"
denied=$(<$BETWEEN/denied)
text_says "$denied denied" || fail "it has forgotten somebody: $(property StatusText)"
saw "$(property StatusText)"

step "who left while it was down is denied"
tenants_start
# Ids come from a seed: these users get the ids of the first boot's users; moe gets new ones, and an event with an id that
# the first boot did not have.
for number in {1..20}; do person "other$number"; done
person moe
okta "users/$(</run/people/moe.okta)/deactivate_silently" -X POST -o /dev/null
okta events -o /dev/null -d "{\"uuid\":\"boot-while-down\",\"published\":\"$(date -u +%FT%T.%3NZ)\",
    \"eventType\":\"user.lifecycle.deactivate\",\"outcome\":{\"result\":\"SUCCESS\"},
    \"target\":[{\"id\":\"$(</run/people/moe.okta)\",\"type\":\"User\",\"alternateId\":\"moe@example.com\"}]}"
until_it 90 is_denied moe
is_let_in other20 || fail "somebody is denied who did nothing"
must_say "$($SYNC audit verify 2>/dev/null)" "decision"
must_be "failed units" "$(systemctl --failed --plain --no-legend)" ""
