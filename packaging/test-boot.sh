#!/usr/bin/env bash
# Boots a fresh Debian in an emulated machine, installs the package there, and tests with systemd what docs/install.md,
# docs/getting-started.md and the units promise: start, fail, restart, confine, stop, upgrade, boot again.
#
#   packaging/test-boot.sh [-w FOLDER] [-s SUITE] [-o "PART …"] [FILE.deb]
#
#   -w FOLDER   working folder; slow intermediate results stay there for the next run. Default: a temporary folder
#   -s SUITE    another Debian release than this machine's, such as trixie
#   -o PARTS    only these, in this order, and the second boot; start with install and guide, and end with package
#   FILE.deb    the package. Default: build it first (packaging/build-deb.sh)
#
# Needs root (for debootstrap), x86-64, 4 GB of disk, and qemu-system-x86, debootstrap and e2fsprogs: it installs none of
# them. The machine has no network except loopback, where the sandbox serves both tenants: a debug build, which this script
# makes. The whole test takes about a quarter of an hour on two cores with emulation; set ACCEL=kvm if you have it.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)

usage() { sed -n '2,15s/^# \{0,1\}//p' "$0" >&2; exit 64; }
fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }
work='' suite='' package=''
parts='install guide trouble needed disk stop confined instances package'
while getopts w:s:o: option; do
    case $option in
        w) mkdir -p "$OPTARG"; work=$(realpath "$OPTARG") ;;
        s) suite=$OPTARG ;;
        o) parts=$OPTARG ;;
        *) usage ;;
    esac
done
shift $((OPTIND - 1))
[[ $# -le 1 ]] || usage
if [[ $# == 1 ]]; then package=$(realpath "$1"); fi

[[ $(id -u) == 0 ]] || fail "needs root, for debootstrap"
[[ $(uname -m) == x86_64 ]] || fail "needs x86-64"
missing=()
for tool in qemu-system-x86_64:qemu-system-x86 debootstrap:debootstrap mkfs.ext4:e2fsprogs dpkg-deb:dpkg strip:binutils; do
    command -v "${tool%:*}" >/dev/null || missing+=("${tool#*:}")
done
[[ ${#missing[@]} == 0 ]] || fail "needs: apt-get install ${missing[*]}"

machine='' kept=$work
finish() {
    if [[ -n $machine ]]; then kill "$machine" 2>/dev/null || true; fi
    if [[ -z $kept ]]; then rm -rf --one-file-system "$work"; fi
}
trap finish EXIT
[[ -n $work ]] || work=$(mktemp -d)

if [[ -z $package ]]; then package=$("$here/packaging/build-deb.sh" | tail -n 1); fi
cargo build --locked --manifest-path "$here/Cargo.toml"

read -r site usual < <(apt-get indextargets --format '$(SITE) $(CODENAME)' 'Created-By: Packages' | head -n 1) ||
    fail "apt knows no archive: apt-get update"
suite=${suite:-$usual}
root=$work/$suite
if [[ ! -e $root/made ]]; then
    echo "-- a Debian ($suite) to boot"
    rm -rf --one-file-system "$root"
    mkdir -p "$root/tree"
    debootstrap --variant=minbase \
        --include=systemd,systemd-sysv,dbus,udev,ca-certificates,curl,sqlite3,initramfs-tools,linux-image-cloud-amd64 \
        "$suite" "$root/tree" "$site" >"$root/debootstrap.log" 2>&1 ||
        { tail -n 20 "$root/debootstrap.log" >&2; fail "debootstrap"; }
    rm -f "$root"/tree/var/cache/apt/archives/*.deb
    echo '/dev/vda / ext4 defaults 0 1' >"$root/tree/etc/fstab"
    echo '127.0.0.1 localhost' >"$root/tree/etc/hosts"
    echo machine >"$root/tree/etc/hostname"
    # The steps are on a second disk, and the result goes to the second serial line.
    cat >"$root/tree/etc/systemd/system/boot-test.service" <<'END'
[Unit]
Description=The steps of packaging/test-boot.sh
After=multi-user.target

[Service]
Type=exec
ExecStart=/bin/sh -c 'mkdir -p /opt/boot && tar -xf /dev/vdb -C /opt/boot && exec bash /opt/boot/steps.sh </dev/null >/dev/ttyS1 2>&1'

[Install]
WantedBy=multi-user.target
END
    ln -s ../boot-test.service "$root/tree/etc/systemd/system/multi-user.target.wants/boot-test.service"
    touch "$root/made"
fi

echo "-- its disk, and what it is to do"
payload=$work/payload
rm -rf --one-file-system "$payload"
mkdir "$payload"
cp "$here"/packaging/boot/* "$payload"
echo "$parts" >"$payload/parts"
cp "$package" "$payload/first.deb"
strip -o "$payload/sandbox" "$here/target/debug/okta-auth0-sync"
# A later version, with another config.toml.
dpkg-deb -R "$package" "$work/later"
sed -i 's/^Version: \(.*\)/Version: \1+later/' "$work/later/DEBIAN/control"
echo '# A new key.' >>"$work/later/etc/okta-auth0-sync/config.toml"
dpkg-deb --root-owner-group -b "$work/later" "$payload/second.deb" >/dev/null
rm -rf --one-file-system "$work/later"
tar -cf "$work/payload.tar" -C "$payload" .
truncate -s %512 "$work/payload.tar"
rm -f "$work/disk.img"
truncate -s 3G "$work/disk.img"
mkfs.ext4 -q -F -d "$root/tree" "$work/disk.img"

echo "-- the machine"
report=$work/report.txt
: >"$report"
qemu-system-x86_64 -accel "${ACCEL:-tcg,thread=multi}" -smp 2 -m 2048 -nodefaults -nographic -nic none \
    -kernel "$root/tree/vmlinuz" -initrd "$root/tree/initrd.img" \
    -append "root=/dev/vda rw console=ttyS0 quiet systemd.show_status=false" \
    -drive "file=$work/disk.img,if=virtio,format=raw,cache=unsafe" \
    -drive "file=$work/payload.tar,if=virtio,format=raw,readonly=on" \
    -serial "file:$work/console.txt" -serial "file:$report" &
machine=$!
# The machine powers off when done; this is the limit.
timeout 3600 tail --pid="$machine" -f "$report" || fail "the machine does not come to an end: $(tail -n 5 "$work/console.txt")"
wait "$machine" || fail "the machine ended badly"
machine=
tr -d '\r' <"$report" | grep -qx DONE || fail "not all of it came true: see above"
echo "all well: $(basename "$package") on Debian $suite: $parts, again"
