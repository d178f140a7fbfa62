#!/bin/sh
# Writes the lock files in requirements/ anew. Usage: deploy/setup/lock.sh [--upgrade]
# Versions already locked are kept unless pyproject.toml rules them out or --upgrade is given.
# The hashes are those of the public package index (uv does not read pip's configuration).
set -eu
cd "$(dirname "$0")/../.."
cache=${COPILOT_CACHE:-.cache}
uv_version=0.13.9

case "${1-}" in
    '' | --upgrade) ;;
    *) echo "usage: deploy/setup/lock.sh [--upgrade]" >&2; exit 64 ;;
esac

tool=$cache/lock-tool
if ! [ -x "$tool/bin/uv" ] || [ "$("$tool/bin/uv" --version | cut -d' ' -f2)" != "$uv_version" ]; then
    rm -rf "$tool"
    /usr/bin/python3 -m venv "$tool"
    "$tool/bin/pip" install --quiet --disable-pip-version-check "uv==$uv_version"
fi

compile() {
    out=$1
    shift
    "$tool/bin/uv" pip compile "$@" --output-file "$out" --quiet --no-config \
        --python-version 3.11 --python-platform x86_64-manylinux_2_28 --only-binary :all: \
        --generate-hashes --no-header --no-annotate --no-strip-extras \
        --no-emit-package cloud-copilot --no-emit-index-url --no-emit-find-links
}

# The larger set first, so that both files hold the same versions.
compile requirements/test.txt pyproject.toml requirements/build.in requirements/lint.in --extra test ${1+"$1"}
compile requirements/demo.txt pyproject.toml requirements/build.in --extra demo \
    --constraints requirements/test.txt --upgrade
# What builds the launcher's single file: it can bundle only what is there.
compile requirements/launcher.txt pyproject.toml requirements/launcher.in --extra launcher \
    --constraints requirements/test.txt ${1+"$1"}
# The peers of the benches: an environment of their own, so that what `make test` sees does not depend
# on whether `make bench` has run.
compile requirements/bench.txt requirements/bench.in ${1+"$1"}

wc -l requirements/demo.txt requirements/test.txt requirements/launcher.txt requirements/bench.txt
