#!/bin/sh
# Runs the checks of `make test` one after the other, stops at the first that fails, and prints how
# long each took. Usage: check.sh STEP... with the steps lint, launcher, unit, image, vm, boinc.
# Set-up comes before. With out=FILE in the environment the launcher is copied there.
set -u
cd "$(dirname "$0")/../.." || exit 1
cache=${COPILOT_CACHE:-.cache}
bin=$cache/venv/bin
durations=
left_out=

shell_files() { find deploy tests -name '*.sh'; echo .ci/run; }

lint() {
    "$bin/ruff" check . \
        && "$bin/ruff" format --check . \
        && "$bin/mypy" \
        && "$bin/lint-imports" \
        && shell_files | xargs "$bin/shellcheck"
}
# tests MARKS [PATH...]
tests() {
    marks=$1
    shift
    if [ "$(id -u)" -eq 0 ]; then
        "$bin/python" -m pytest -m "$marks" "$@"
    else
        "$bin/python" -m pytest -m "$marks and not root" "$@" || return
        left_out='left out: the tests marked root, because you are not root\n'
    fi
}
unit() { tests "not vm"; }
launcher() {
    "$cache/venv-launcher/bin/python" -m deploy.launcher --cache "$cache/launcher" ${out:+--out "$out"}
}
vm() { tests "vm and not boinc"; }
boinc() { tests vm tests/integration/boinc tests/e2e/test_demo_boinc.py; }
image() {
    exec 9>>"$cache/image.lock"
    if ! flock --nonblock 9; then
        echo "waiting for another run that builds the image: $(cat "$cache/image.lock")"
        flock 9
    fi
    echo "process $$, since $(date '+%F %T')" >"$cache/image.lock"
    "$bin/python" -m deploy.image build --cache "$cache/image-build" --out "$cache/image"
    code=$?
    exec 9>&-
    return "$code"
}

report() { printf '%b' "$durations$left_out"; }

for step in "$@"; do
    case $step in
        lint | launcher | unit | image | vm | boinc) ;;
        *)
            echo "check.sh: no step called $step; there are lint, launcher, unit, image, vm, boinc" >&2
            exit 64
            ;;
    esac
    echo "---- $step"
    began=$(date +%s)
    "$step"
    code=$?
    took="$(($(date +%s) - began)) s"
    if [ "$code" -ne 0 ]; then
        durations="$durations$step: failed after $took\n"
        report
        exit "$code"
    fi
    durations="$durations$step: passed in $took\n"
done
report
