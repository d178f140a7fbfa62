#!/bin/sh
# Brings this machine to where the repository's commands run. Plain sh: a new Debian machine has
# git and make, and perhaps no Python yet.
set -u

usage() {
    cat <<'EOF'
usage: deploy/setup/setup.sh [--help] demo | test | launcher | bench | packages [PACKAGE...]

  demo      what `make demo` needs: Debian packages, a virtual environment, the jobs' input wheels
  test      the same plus the tools of `make test`
  launcher  what `make launcher` needs, in a virtual environment of its own
  bench     the same plus the peers of `make bench`, in a virtual environment of their own
  packages  Debian packages only; further names may follow

Everything is kept in one directory, .cache in the repository or the one that COPILOT_CACHE names.
A step whose inputs did not change is not repeated. Exit codes: 0 done, 1 a step failed (the log is
named), 2 packages are missing and there is no way to become root, 3 too little free disk.
EOF
}

case "${1-}" in
    demo | test | launcher | bench | packages) mode=$1; shift ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 64 ;;
esac

here=$(cd "$(dirname "$0")" && pwd) || exit 1
root=${here%/deploy/setup}
case ${COPILOT_CACHE:-.cache} in
    /*) cache=$COPILOT_CACHE ;;
    *) cache=$root/${COPILOT_CACHE:-.cache} ;;
esac
debian_python=/usr/bin/python3
min_free_kib=2929688 # 3 GB
# On top of packages.txt: servers and clients of which the tests start their own; patch for planted
# bugs; BOINC's own library as a yardstick.
test_packages="postgresql-15 prosody ejabberd coop-computing-tools patch mariadb-server-core"
test_packages="$test_packages boinc-client libboinc-app7"
launcher_packages="binutils libpython3.11" # PyInstaller's
bench_packages="$test_packages redis-server"
log=$cache/setup.log
child=
half=          # removed when the step that makes it does not end
session=setsid # a step is stopped together with what it started

unset PYTHONHOME PYTHONPATH PIP_TARGET PIP_PREFIX PIP_USER PIP_REQUIRE_VIRTUALENV
export PIP_DISABLE_PIP_VERSION_CHECK=1

say() { echo "setup: $*"; }
die() {
    code=$1
    shift
    echo "setup: $*" >&2
    exit "$code"
}

# ---- running one step -----------------------------------------------------------------------------

stop() {
    trap '' INT TERM HUP
    if [ -n "$child" ]; then
        say "stopping: $label"
        # its whole session, where it has one
        kill -s TERM -- "-$child" 2>/dev/null || kill -s TERM "$child" 2>/dev/null
        while kill -0 "$child" 2>/dev/null; do wait "$child"; done
    fi
    [ -z "$half" ] || rm -rf "$half"
    echo >&2
    die 130 "stopped; the next run goes on from here"
}

tail_of_log() { tail -n 1 "$log" 2>/dev/null | tr -cd '[:print:]' | cut -c1-60; }

# work LABEL COMMAND...: runs it with its output in the log; shows that something happens, on a
# terminal in one line, elsewhere as a plain line every 10 s.
work() {
    label=$1
    shift
    say "$label"
    began=$(date +%s)
    shown=0
    printf '\n==== %s: %s\n' "$(date '+%F %T')" "$label" >>"$log"
    $session "$@" >>"$log" 2>&1 </dev/null &
    child=$!
    while kill -0 "$child" 2>/dev/null; do
        passed=$(($(date +%s) - began))
        if [ -t 1 ]; then
            printf '\r\033[K  %s s  %s' "$passed" "$(tail_of_log)"
        elif [ $((passed - shown)) -ge 10 ]; then
            shown=$passed
            say "  $passed s: $(tail_of_log)"
        fi
        sleep 0.2
    done
    wait "$child"
    code=$?
    child=
    if [ -t 1 ]; then printf '\r\033[K'; fi
    if [ "$code" -ne 0 ]; then
        echo "---- last lines of $log" >&2
        tail -n 20 "$log" >&2
        [ -z "$half" ] || rm -rf "$half"
        die 1 "failed: $label (exit code $code). The whole output is in $log"
    fi
    say "  done in $(($(date +%s) - began)) s"
}

# A stamp says for which inputs a step was done; it is written last, in one piece.
is_done() { [ "$(cat "$cache/stamps/$1" 2>/dev/null)" = "$2" ]; }
set_done() { echo "$2" >"$cache/stamps/$1.new" && mv "$cache/stamps/$1.new" "$cache/stamps/$1"; }
digest() { cat "$@" | sha256sum | cut -c1-64; }

# ---- before anything is changed -------------------------------------------------------------------

check_disk() {
    free=$(df -Pk "$cache" | awk 'NR == 2 {print $4}')
    if [ "$free" -lt "$min_free_kib" ]; then
        die 3 "only $((free / 1024)) MiB are free for $cache, 3 GB are needed: free some space there" \
            "or name another directory with COPILOT_CACHE=/path"
    fi
}

take_lock() {
    exec 9>>"$cache/setup.lock"
    if ! flock --nonblock 9; then
        say "waiting for another run: $(cat "$cache/setup.lock")"
        flock 9
    fi
    echo "process $$, since $(date '+%F %T')" >"$cache/setup.lock"
}

# ---- packages -------------------------------------------------------------------------------------

# Prints the names that are missing or too old.
missing_packages() {
    {
        # shellcheck disable=SC2016  # dpkg-query's own variables
        dpkg-query -W -f '= ${Package} ${db:Status-Status} ${Version}\n'
        sed 's/#.*//' "$here/packages.txt"
        printf '%s\n' "$@"
    } | awk '
        $1 == "=" { if ($3 == "installed") has[$2] = $4; next }
        NF && !($1 in has) { print $1 }
        NF == 3 && ($1 in has) { print $1, has[$1], $3 }
    ' | while read -r name has least; do
        if [ -z "$has" ] || ! dpkg --compare-versions "$has" ge "$least"; then echo "$name"; fi
    done
}

ask_sudo() {
    say "sudo may ask for your password, to install: $missing"
    sudo -v
}

packages() {
    command -v apt-get >/dev/null \
        || die 1 "this set-up is made for Debian 12: it found no apt-get. What to install by other" \
            "means stands in deploy/setup/packages.txt"
    missing=$(missing_packages "$@" | tr '\n' ' ')
    missing=${missing% }
    [ -n "$missing" ] || return 0
    line="apt-get update && apt-get install --no-install-recommends $missing"
    if [ "$(id -u)" = 0 ]; then
        become=
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        become="sudo -n"
    elif command -v sudo >/dev/null && [ -t 0 ] && ask_sudo; then
        become="sudo -n"
    else
        echo "setup: Debian packages are missing, and installing them needs root." \
            "Run this line as root, then again what you ran:" >&2
        echo "$line" >&2
        exit 2
    fi
    session= # sudo remembers the password per terminal; this script stops its own children
    # shellcheck disable=SC2086  # lists of words on purpose
    work "Debian packages: $missing" $become sh "$here/install-packages.sh" $missing
    session=setsid
    left=$(missing_packages "$@" | tr '\n' ' ')
    [ -z "$left" ] || say "warning: apt has nothing newer for: $left"
}

# ---- the virtual environment ----------------------------------------------------------------------

python_id=
venv_inputs() { echo "$python_id" | cat - "$root/requirements/$1.txt" | sha256sum | cut -c1-64; }

# venv DIRECTORY NAME: the packages of requirements/NAME.txt in $cache/DIRECTORY.
venv() {
    place=$cache/$1
    python_id=$("$debian_python" -c 'import sys; print(sys.version)') || die 1 "$debian_python does not run"
    inputs=$(venv_inputs "$2")
    # `test` holds all of `demo`, in the same versions
    if [ -x "$place/bin/python" ] && ! [ -e "$place/.half" ] \
        && { is_done "venv-$2" "$inputs" \
            || { [ "$2" = demo ] && is_done venv-test "$(venv_inputs test)"; }; }; then
        return 0
    fi
    if [ -e "$place/.half" ] || ! is_debian_venv; then
        rm -rf "$place"
        rm -f "$cache/stamps/venv-$2"
        [ "$1" != venv ] || rm -f "$cache/stamps/venv-demo" "$cache/stamps/venv-test" "$cache/stamps/project"
        half=$place
        work "virtual environment on $debian_python" "$debian_python" -m venv "$place"
    fi
    : >"$place/.half"
    work "Python packages of requirements/$2.txt" \
        "$place/bin/python" -m pip install --require-hashes --no-deps --only-binary :all: \
        --progress-bar off -r "$root/requirements/$2.txt"
    rm -f "$place/.half"
    half=
    set_done "venv-$2" "$inputs"
}

# Made by an interpreter other than Debian's, or by an older one: made again.
is_debian_venv() {
    [ -x "$place/bin/python" ] && [ "$("$place/bin/python" -c 'import sys; print(sys.version, sys.base_prefix)' 2>/dev/null)" = "$python_id /usr" ]
}

# The project itself, editable: its console scripts and entry points.
project() {
    inputs=$(echo "$root" | cat - "$root/pyproject.toml" | sha256sum | cut -c1-64)
    if is_done project "$inputs" && [ -x "$cache/venv/bin/copilot" ]; then return 0; fi
    work "the project itself, editable" "$cache/venv/bin/python" -m pip install --no-deps \
        --no-build-isolation --no-index --quiet --editable "$root"
    set_done project "$inputs"
}

# ---- the jobs' input: one wheel for this machine's Python, one for the guest's --------------------

has_wheel() { [ -n "$(find "$cache/wheels" -name "pythia8mc-*-$1-*.whl" 2>/dev/null)" ]; }

wheel() {
    if has_wheel "cp$1"; then return 0; fi
    half=$cache/wheels/tmp
    rm -rf "$half"
    mkdir -p "$half"
    work "input of the demo's jobs, for Python 3.${1#3}" "$cache/venv/bin/python" -m pip download \
        --require-hashes --no-deps --only-binary :all: --progress-bar off --no-cache-dir \
        --implementation cp --python-version "$1" --platform manylinux2014_x86_64 \
        --dest "$half" -r "$root/requirements/pythia.txt"
    mv "$half"/*.whl "$cache/wheels/"
    rm -rf "$half"
    half=
}

wheels() {
    inputs=$(digest "$root/requirements/pythia.txt")
    is_done wheels "$inputs" || rm -rf "$cache/wheels"
    mkdir -p "$cache/wheels"
    set_done wheels "$inputs"
    wheel 311
    wheel 313
}

mkdir -p "$cache/stamps" || die 1 "cannot write to $cache"
check_disk
trap stop INT TERM HUP
take_lock
# shellcheck disable=SC2086  # lists of words on purpose
[ "$mode" != test ] || set -- $test_packages $launcher_packages "$@"
# shellcheck disable=SC2086
[ "$mode" != launcher ] || set -- $launcher_packages "$@"
# shellcheck disable=SC2086
[ "$mode" != bench ] || set -- $bench_packages "$@"
packages "$@"
[ "$mode" != packages ] || exit 0
case $mode in test | launcher) venv venv-launcher launcher ;; esac
[ "$mode" != launcher ] || exit 0
if [ "$mode" = bench ]; then
    venv venv test
    venv venv-peers bench
else
    venv venv "$mode"
fi
project
[ "$mode" = bench ] || wheels
