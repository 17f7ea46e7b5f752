#!/usr/bin/env bash
# Runs once at each boot of the machine of packaging/test-boot.sh. Its last line is the result.
set -euo pipefail
cd "$(dirname "$0")"
finish() {
    local code=$?
    if [[ $code == 0 ]]; then echo "DONE"; else echo "BROKEN: exit code $code"; fi
    sync
    systemctl poweroff
}
trap finish EXIT
trap 'printf "FAILED: line %s of %s: %s\n" "$LINENO" "${BASH_SOURCE[0]##*/}" "$BASH_COMMAND"' ERR
set -o errtrace
export HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive SYSTEMD_PAGER='' NO_COLOR=1
source ./common.sh

# Left by the first boot for the second.
readonly BETWEEN=/var/lib/boot-test

if [[ ! -e $BETWEEN/rebooted ]]; then
    mkdir -p "$BETWEEN"
    read -r -a parts <./parts
    for part in "${parts[@]}"; do
        printf '== %s\n' "$part"
        source "./$part.sh"
    done
    touch "$BETWEEN/rebooted"
    echo "REBOOTING"
    sync
    trap - EXIT
    systemctl reboot
else
    printf '== %s\n' "again"
    source ./again.sh
fi
