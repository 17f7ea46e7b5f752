# No space for the state: while the service runs, and when it starts.

step "the disk is full: said, nothing lost, and on it goes when there is room"
systemctl stop $UNIT
mv $STATE $STATE.before
mkdir -m 0700 $STATE
mount -t tmpfs -o size=4m,mode=0700 full $STATE
chown --reference=$STATE.before $STATE
cp -a $STATE.before/. $STATE
systemctl start $UNIT
until_it 60 text_says denied
since
person gil
# Root may use the reserved blocks too, so nothing is left.
cat /dev/zero >$STATE/ballast 2>/dev/null || true
leaves gil
full_is_told() { logged_is "the disk is full" || text_says "disk is full"; }
until_it 120 full_is_told
saw "$(logged | grep -m 1 'disk is full')"
must_say "$(systemctl status --no-pager --full $UNIT)" "full"
is_active || fail "it gave up"
$SYNC status >/dev/null 2>&1 || fail "status does not answer: $($SYNC status 2>&1)"
rm $STATE/ballast
until_it 120 is_denied gil
must_be "restarts on a full disk" "$(property NRestarts)" 0

step "the disk is full when it starts, with a state and without"
systemctl stop $UNIT
cat /dev/zero >$STATE/ballast 2>/dev/null || true
person hal
leaves hal
for kept in yes no; do
    if [[ $kept == no ]]; then
        systemctl stop $UNIT
        rm -f $STATE/state.db*
        cat /dev/zero >$STATE/ballast 2>/dev/null || true
    fi
    dropin $UNIT soon <<<$'[Service]\nRestartSec=1'
    since
    systemctl start --no-block $UNIT
    # If not even the index of a WAL has space, SQLite reports an I/O error, and the program names both causes.
    until_it 60 logged_is "is full"
    saw "$(logged | grep -m 1 'is full')"
    rm $STATE/ballast
    until_it 60 is_active
    until_it 60 is_denied hal
    undo_dropin $UNIT soon
    # Work for the next step.
    returns hal
    until_it 60 is_let_in hal
    leaves hal
done
until_it 60 is_denied hal
systemctl stop $UNIT
umount $STATE
rmdir $STATE
mv $STATE.before $STATE
systemctl start $UNIT
until_it 60 text_says denied
