#!/usr/bin/env bash
# Installs, upgrades, removes and purges the Debian package in a temporary Debian, and checks the files after each step.
#
#   packaging/test-deb.sh [FILE.deb]     without a file, the package is built first
#
# Needs root (it changes the root directory) and debootstrap; uses lintian if it is installed. It cannot test
# that the services start: that needs systemd as the first process.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)

[[ $(id -u) == 0 ]] || { echo "needs root, for chroot" >&2; exit 1; }
command -v debootstrap >/dev/null || { echo "needs debootstrap: apt-get install debootstrap" >&2; exit 1; }

if [[ $# -gt 0 ]]; then
    package=$(realpath "$1")
else
    package=$("$here/packaging/build-deb.sh" | tail -n 1)
fi

readonly BINARY_MAX=$((15 * 1024 * 1024))
work=$(mktemp -d)
root=$work/root
finish() {
    if mountpoint -q "$root/proc"; then umount "$root/proc"; fi
    rm -rf --one-file-system "$work"
}
trap finish EXIT

step() { printf -- '-- %s\n' "$*"; }
fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }
inside() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"; }
mode() { stat -c '%a %U:%G' "$root$1"; }
must_be() { [[ "$(mode "$1")" == "$2" ]] || fail "$1 is $(mode "$1"), not $2"; }
must_exist() { [[ -e $root$1 || -L $root$1 ]] || fail "$1 is not there"; }
must_not_exist() { [[ ! -e $root$1 && ! -L $root$1 ]] || fail "$1 is there"; }
must_say() { grep -qF -- "$2" <<<"$1" || fail "expected \"$2\" in: $1"; }

step "what is in it"
listing=$(dpkg-deb -c "$package")
about=$(dpkg-deb -I "$package")
for file in ./usr/bin/okta-auth0-sync ./etc/okta-auth0-sync/config.toml \
    ./usr/lib/systemd/system/okta-auth0-sync{,@,-check,-check@}.service \
    ./usr/lib/systemd/system/okta-auth0-sync-check{,@}.timer \
    ./usr/share/man/man1/okta-auth0-sync{,-run,-check,-status}.1.gz \
    ./usr/share/bash-completion/completions/okta-auth0-sync ./usr/share/zsh/vendor-completions/_okta-auth0-sync \
    ./usr/share/fish/vendor_completions.d/okta-auth0-sync.fish \
    ./usr/share/doc/okta-auth0-sync/{copyright,changelog.gz,changelog.Debian.gz,THIRD-PARTY.gz,README.md}; do
    grep -qE " ${file//./\\.}\$" <<<"$listing" || fail "$file is not in the package"
done
[[ $(grep -c '/systemd/system/okta-auth0-sync' <<<"$listing") == 6 ]] || fail "not six units: $listing"
if grep -qE 'sandbox|demo' <<<"$listing"; then fail "something of the sandbox: $listing"; fi
if awk '$2 != "root/root" && $2 != "0/0"' <<<"$listing" | grep -q .; then fail "not everything is root's: $listing"; fi
must_say "$about" "ca-certificates"
must_say "$about" "libc6"
[[ "$(dpkg-deb --ctrl-tarfile "$package" | tar -xO ./conffiles)" == /etc/okta-auth0-sync/config.toml ]] || fail "conffiles"
if command -v lintian >/dev/null; then
    # The publisher sets the maintainer's address; the package closes no Debian bug.
    lintian --allow-root --fail-on error,warning --info --suppress-tags \
        bogus-mail-host,initial-upload-closes-no-bugs,maintainer-script-calls-systemctl "$package" ||
        fail "lintian has something to say"
else
    echo "   NOT TESTED: lintian is not installed"
fi

step "a Debian to throw away"
read -r site suite < <(apt-get indextargets --format '$(SITE) $(CODENAME)' 'Created-By: Packages' | head -n 1) ||
    fail "apt knows no archive: apt-get update"
debootstrap --variant=minbase --include=ca-certificates,systemd "$suite" "$root" "$site" >"$work/debootstrap.log" 2>&1 ||
    { tail -n 20 "$work/debootstrap.log" >&2; fail "debootstrap"; }
mount -t proc proc "$root/proc"
# No service starts in here, and dpkg asks no questions.
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod +x "$root/usr/sbin/policy-rc.d"
cp "$package" "$root/first.deb"

step "install"
inside dpkg -i /first.deb
must_be /usr/bin/okta-auth0-sync "755 root:root"
must_be /etc/okta-auth0-sync/config.toml "644 root:root"
must_be /etc/okta-auth0-sync/credentials "700 root:root"
[[ $(stat -c %s "$root/usr/bin/okta-auth0-sync") -lt $BINARY_MAX ]] || fail "the program is larger than $BINARY_MAX bytes"
version=$(inside dpkg-query -W -f '${Version}' okta-auth0-sync)
[[ "$(inside okta-auth0-sync --version)" == "okta-auth0-sync ${version%-*}" ]] || fail "--version does not say $version"
if inside okta-auth0-sync --help | grep -qwE 'demo|sandbox'; then fail "the sandbox is in it"; fi
for name in okta-auth0-sync.service okta-auth0-sync-check.timer; do
    [[ "$(inside systemctl is-enabled "$name" || true)" == disabled ]] || fail "$name was enabled unasked"
done
for unit in okta-auth0-sync.service okta-auth0-sync@acme.service okta-auth0-sync-check.timer okta-auth0-sync-check@acme.timer; do
    said=$(inside systemd-analyze verify --man=no "$unit" 2>&1 | grep okta-auth0-sync || true)
    [[ -z $said ]] || fail "$said"
done
inside bash -c '. /usr/share/bash-completion/completions/okta-auth0-sync && complete -p okta-auth0-sync' >/dev/null
zcat "$root/usr/share/man/man1/okta-auth0-sync.1.gz" | grep -q '^\.TH okta-auth0-sync 1' || fail "not a manual page"

step "configure: unconfigured it says what is missing, then it is content"
said=$(inside okta-auth0-sync check --offline 2>&1) && fail "no credentials, and content: $said"
must_say "$said" "okta-api-token"
for secret in okta-api-token auth0-client-secret; do
    install -m 0600 /dev/stdin "$root/etc/okta-auth0-sync/credentials/$secret" <<<"a-secret-of-nothing"
done
sed -i -e 's/acme/example-org/' -e 's/YOUR_CLIENT_ID/example-client/' "$root/etc/okta-auth0-sync/config.toml"
inside okta-auth0-sync check --offline >/dev/null || fail "check --offline: $(inside okta-auth0-sync check --offline 2>&1)"
printf '\n# Edited here.\n' >>"$root/etc/okta-auth0-sync/config.toml"
install -d -m 0700 "$root/etc/okta-auth0-sync/acme/credentials"
inside systemctl --quiet enable okta-auth0-sync.service okta-auth0-sync@acme.service okta-auth0-sync-check.timer
wants=/etc/systemd/system/multi-user.target.wants
# Where systemd keeps the state of a service with DynamicUser=.
install -d -m 0700 "$root/var/lib/private/okta-auth0-sync"
echo state >"$root/var/lib/private/okta-auth0-sync/state.db"
ln -s private/okta-auth0-sync "$root/var/lib/okta-auth0-sync"

step "upgrade, to a version that has another config.toml"
dpkg-deb -R "$package" "$work/second"
sed -i "s/^Version: .*/Version: ${version%-*}-9/" "$work/second/DEBIAN/control"
echo '# A new key.' >>"$work/second/etc/okta-auth0-sync/config.toml"
dpkg-deb --root-owner-group -b "$work/second" "$root/second.deb" >/dev/null
inside dpkg --force-confold -i /second.deb
tail -n 1 "$root/etc/okta-auth0-sync/config.toml" | grep -q '^# Edited here\.$' || fail "the edited configuration was replaced"
must_exist /etc/okta-auth0-sync/config.toml.dpkg-dist
must_be /etc/okta-auth0-sync/credentials "700 root:root"
must_be /etc/okta-auth0-sync/credentials/okta-api-token "600 root:root"
must_exist "$wants/okta-auth0-sync.service"
must_exist "$wants/okta-auth0-sync@acme.service"
must_exist /var/lib/private/okta-auth0-sync/state.db
inside okta-auth0-sync check --offline >/dev/null || fail "not content after the upgrade"

step "remove: the program goes; configuration, credentials and state stay"
said=$(inside dpkg -r okta-auth0-sync 2>&1)
must_say "$said" "marks in Auth0 stay"
must_not_exist /usr/bin/okta-auth0-sync
must_not_exist /usr/lib/systemd/system/okta-auth0-sync.service
must_exist /etc/okta-auth0-sync/config.toml
must_exist /etc/okta-auth0-sync/credentials/okta-api-token
must_exist /var/lib/private/okta-auth0-sync/state.db

step "install again: as it was"
inside dpkg --force-confold -i /second.deb >/dev/null
tail -n 1 "$root/etc/okta-auth0-sync/config.toml" | grep -q '^# Edited here\.$' || fail "the edited configuration was replaced"
[[ "$(inside systemctl is-enabled okta-auth0-sync.service)" == enabled ]] || fail "it is not enabled any more"

step "purge: configuration and credentials go, the state stays"
said=$(inside dpkg -P okta-auth0-sync 2>&1)
must_say "$said" "the state is kept"
must_say "$said" "rm -r /var/lib/private/okta-auth0-sync"
must_not_exist /etc/okta-auth0-sync
must_not_exist "$wants/okta-auth0-sync.service"
must_not_exist "$wants/okta-auth0-sync@acme.service"
must_not_exist /etc/systemd/system/timers.target.wants/okta-auth0-sync-check.timer
must_exist /var/lib/private/okta-auth0-sync/state.db
left=$(find "$root/usr" "$root/etc" -name '*okta-auth0-sync*' | head)
[[ -z $left ]] || fail "left behind: $left"

echo "all well: $(basename "$package"), a program of $(dpkg-deb --fsys-tarfile "$package" | tar -xO ./usr/bin/okta-auth0-sync | wc -c) bytes"
