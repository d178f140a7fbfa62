#!/bin/sh
# vm-launcher for Linux on x86-64 with glibc 2.36 or later. After the last of these lines comes a
# packed directory, which is unpacked into the current one and removed by the program at its end.
# This shell becomes the program: one process, so that who kills it has killed the launcher.
set -u
prefix=.vm-launcher-

fail() {
    echo "vm-launcher: $1" >&2
    [ "${2-}" = boinc-task ] || exit 1
    # BOINC's client keeps the task, shows the reason and starts it again later
    { printf '3600\n%s\nnotice\n' "$1" >boinc_temporary_exit; } 2>/dev/null && exit 0
    exit 1
}

# start PID: when that process was started, in clock ticks since boot
start() {
    read -r stat 2>/dev/null <"/proc/$1/stat" || return
    # shellcheck disable=SC2086  # a list of words on purpose
    set -- ${stat##*) }
    echo "${20}"
}

# What launchers that were killed have left; a pid may have been given again meanwhile.
for old in "$prefix"*-*; do
    [ -d "$old" ] || continue
    rest=${old#"$prefix"}
    [ "$(start "${rest%-*}")" = "${rest#*-}" ] || rm -rf "./$old" 2>/dev/null
done

unpacked=$PWD/$prefix$$-$(start $$)
mkdir -m 700 "$unpacked" 2>/dev/null ||
    fail "cannot write to $PWD, where it unpacks itself: go to a directory that you can write to (@MEGABYTES@ MB are needed)" "$@"
if ! { tail -c "+@START@" "$0" | tar -xzof - -C "$unpacked"; } 2>/dev/null; then
    rm -rf "$unpacked"
    fail "the launcher does not unpack: $PWD needs @MEGABYTES@ MB of free space (and this computer tail, tar and gzip)" "$@"
fi
if ! [ -x "$unpacked/vm-launcher" ]; then
    rm -rf "$unpacked"
    fail "no program may be started from $PWD: its file system is mounted noexec" "$@"
fi
MALLOC_ARENA_MAX=1 exec "$unpacked/vm-launcher" "$@" # threads do not get heaps of their own
