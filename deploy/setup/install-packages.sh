#!/bin/sh
# The part of the set-up that needs root. Usage: install-packages.sh PACKAGE...
#
# Installs Debian packages without letting any of them start or enable a service, and puts back what
# it changed to achieve that, also when it is interrupted:
#  - a policy-rc.d (Debian's own switch for "start nothing now") stands while packages are installed,
#    unless the machine has one of its own;
#  - PostgreSQL's package, if it is among them, makes no cluster: tests make their own;
#  - units and init scripts that the packages enabled are disabled again afterwards.
# An interruption during the download stops at once. Once dpkg is at work it is let finish, because a
# half installed package is worse than a few seconds more.
set -u

policy=/usr/sbin/policy-rc.d
cluster=/etc/postgresql-common/createcluster.d/cloud-copilot.conf
policy_mark='# temporary, by the set-up of Cloud Co-Pilot'
lock=/run/cloud-copilot-packages.lock
before=/run/cloud-copilot-enabled-before
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
child=
stopped=

say() { echo "packages: $*"; }

enabled() {
    find /etc/systemd/system /etc/systemd/user -type l 2>/dev/null
    find /etc/rc?.d -name 'S*' 2>/dev/null
}

forbid_starts() {
    if [ -e "$policy" ]; then
        # One that an earlier run had to leave behind (kill -9) is taken over.
        grep -qF "$policy_mark" "$policy" 2>/dev/null || return 0
    fi
    printf '#!/bin/sh\n%s\nexit 101\n' "$policy_mark" >"$policy.new" || return 1
    chmod 755 "$policy.new" && mv "$policy.new" "$policy"
}

allow_starts() {
    rm -f "$policy.new"
    if grep -qF "$policy_mark" "$policy" 2>/dev/null; then rm -f "$policy"; fi
}

forbid_cluster() {
    mkdir -p "${cluster%/*}" && echo 'create_main_cluster = false' >"$cluster"
}

allow_cluster() {
    rm -f "$cluster"
    # the package's own directories are not empty
    rmdir "${cluster%/*}" "${cluster%/*/*}" 2>/dev/null || :
}

disable_new() {
    [ -f "$before" ] || return 0
    disabled=$(
        enabled | sort | comm -13 "$before" - | while IFS= read -r link; do
            name=${link##*/}
            case $link in
                /etc/rc?.d/*) name=${name#S??} && update-rc.d "$name" disable >/dev/null ;;
                # An alias (dbus-org.….service) or a start at boot: neither before someone asks for it.
                *) rm -f "$link" ;;
            esac
            echo "$name"
        done | sort -u | tr '\n' ' '
    )
    [ -z "$disabled" ] || say "left disabled: $disabled"
    rm -f "$before"
}

# Runs a step in the background so that a signal is noticed while it works. A shell starts
# background commands with the interrupt key ignored.
step() {
    setsid "$@" </dev/null &
    child=$!
    while :; do
        wait "$child"
        code=$?
        # wait also returns for a signal; the child may still be there
        kill -0 "$child" 2>/dev/null || break
        if [ -n "$stopped" ] && [ -n "$interruptible" ]; then kill "$child" 2>/dev/null; fi
    done
    child=
    if [ -n "$stopped" ]; then exit 130; fi
    return "$code"
}

finish() {
    trap '' INT TERM HUP
    disable_new
    allow_starts
    allow_cluster
}

on_signal() {
    stopped=yes
    if [ -z "$child" ]; then exit 130; fi
    [ -n "$interruptible" ] || say "stopping as soon as the packages at hand are complete"
}

# What is incomplete may be the work of a dpkg that still runs.
finish_interrupted() {
    tries=300
    until said=$(dpkg --configure -a 2>&1); do
        echo "$said"
        case $said in *"locked by another process"*) ;; *) return 1 ;; esac
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 1
        sleep 2
    done
}

install() {
    step apt-get -q -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0 -o APT::Install-Recommends=false \
        -o Dpkg::Options::=--force-confold --yes "$@"
}

[ $# -gt 0 ] || { echo "usage: install-packages.sh PACKAGE..." >&2; exit 64; }
[ "$(id -u)" = 0 ] || { echo "packages: this part needs root" >&2; exit 77; }

interruptible=yes
exec 8>"$lock" || exit 73
flock 8
trap finish EXIT
trap on_signal INT TERM HUP
# The list of an earlier run that was killed still holds: what that run enabled counts as new.
[ -f "$before" ] || { enabled | sort >"$before.new" && mv "$before.new" "$before"; } || exit 73
forbid_starts || exit 73
forbid_cluster || exit 73

if [ -n "$(dpkg --audit 2>/dev/null)" ]; then
    say "completing an earlier, interrupted installation"
    interruptible=
    finish_interrupted || exit 1
    interruptible=yes
fi

# Lists that are missing or too old for what the mirror holds: fetched once.
if ! apt-get -s -qq --no-install-recommends install "$@" >/dev/null 2>&1 \
    || ! install --download-only install "$@"; then
    say "fetching the package lists"
    step apt-get -q -o DPkg::Lock::Timeout=600 update || exit 1
    say "fetching packages"
    install --download-only install "$@" || exit 1
fi
say "installing: $*"
interruptible=
install --no-download install "$@" || exit 1
