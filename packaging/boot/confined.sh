# Tries what the units forbid, with a program that runs in place of the service under every setting of the unit.

step "things that a process may do where nothing keeps it from them"
cp "$HERE/confined.pl" /usr/local/bin/confined
for place in /usr /etc /opt /var/lib /tmp /var/tmp /root; do
    install -m 0666 /dev/stdin "$place/boot-open" <<<open
done
mkdir -m 0777 /opt/boot-folder
chmod 0755 /root
install -m 0644 /dev/stdin /home/visitor/open <<<open
chmod 0755 /home/visitor
install -m 0600 -o visitor /dev/stdin /opt/boot-private <<<private
mknod -m 0666 /dev/boot-open b 254 0
mknod -m 0666 /opt/boot-device b 254 0
install -m 4755 /usr/bin/id /opt/boot-setuid
# A 32-bit system call: exit(42) by int 0x80.
perl -e 'print pack("A4C12vvVVVVVvvvvvv", "\x7fELF", 1, 1, 1, (0) x 9, 2, 3, 1, 0x08048054, 52, 0, 0, 52, 32, 1, 0, 0, 0),
    pack("V8", 1, 0, 0x08048000, 0x08048000, 96, 96, 5, 4096), "\xbb\x2a\0\0\0\xb8\1\0\0\0\xcd\x80"' >/opt/boot-32
chmod 0755 /opt/boot-32
systemd-run --quiet --unit=other --uid=visitor sleep infinity
other=$(property MainPID other.service)
surroundings=(HOST_IPC="$(readlink /proc/self/ns/ipc)" HOST_UTS="$(readlink /proc/self/ns/uts)"
    HOST_NET="$(readlink /proc/self/ns/net)" OTHER_PROCESS="$other")
ulimit -n 10000
free=$(env "${surroundings[@]}" PLACE=/opt perl /usr/local/bin/confined claims offline)
umount /opt/boot-folder
must_not_say "$free" '^refused'
saw "$(grep -c '^allowed' <<<"$free") things can be done by who is not confined"

# confined_by UNIT WHAT [KIND]: the output of the program that runs in place of the unit's own.
confined_by() {
    local settings
    settings=$(grep -vE '^(\[Install\]|WantedBy=|Type=|NotifyAccess=|ExecStart=|Watchdog|Restart|TimeoutStartSec=|StandardOutput=)' \
        "/usr/lib/systemd/system/$1")
    {
        printf '%s\n' "$settings" | sed '/^\[Service\]$/q'
        printf 'Type=oneshot\nExecStart=/usr/bin/perl /usr/local/bin/confined %s\nStandardOutput=truncate:/run/confined.txt\n' "${*:2}"
        printf 'Environment=%s\n' "${surroundings[@]}"
        printf '%s\n' "$settings" | sed '1,/^\[Service\]$/d'
    } >/run/systemd/system/confined.service
    systemctl daemon-reload
    systemctl start confined.service 2>/dev/null || true
    cat /run/confined.txt
}

systemctl stop $UNIT
for unit in okta-auth0-sync okta-auth0-sync-check; do
    kind=
    if [[ $unit == okta-auth0-sync-check ]]; then kind=offline; fi
    step "$unit.service: every one of them is refused, and what it needs works"
    said=$(confined_by $unit.service claims $kind)
    must_not_say "$said" '^allowed'
    saw "$said"
    ran=$(grep -c '^refused' <<<"$said")
    if [[ -n $kind ]]; then must_be "attempts" "$ran" "$(grep -c . <<<"$free")"; fi
    said=$(confined_by $unit.service needs $kind)
    must_not_say "$said" '^broken'
    must_say "$said" "works to write its state"
    saw "$said"
    must_not_say "$(confined_by $unit.service memory 1200000000)" allowed
    is Result oom-kill confined.service || fail "more memory than allowed, and it ended by $(property Result confined.service)"
    systemctl reset-failed confined.service
done
systemctl stop other.service
rm -r /usr/boot-open /etc/boot-open /opt/boot-* /var/lib/boot-open /tmp/boot-open /var/tmp/boot-open /root/boot-open \
    /dev/boot-open /usr/local/bin/confined /run/systemd/system/confined.service
systemctl daemon-reload
systemctl start $UNIT
