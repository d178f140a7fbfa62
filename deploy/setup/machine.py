"""This machine's configuration as far as a bare system needs it to reach mirrors and indexes."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
from pathlib import Path

SUITES = {"bookworm": "", "bookworm-updates": "", "bookworm-security": "-security"}
APT_OPTIONS = re.compile(
    r"Acquire::(http|https|ftp|Check-Valid-Until|Check-Date|Retries|ForceIPv[46]|Languages)\b"
)
VARIABLES = re.compile(
    r"(https?_proxy|no_proxy|all_proxy|HTTPS?_PROXY|NO_PROXY|ALL_PROXY|SSL_CERT_(FILE|DIR)"
    r"|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|GIT_SSL_CAINFO"
    r"|PIP_(INDEX_URL|EXTRA_INDEX_URL|CERT|CLIENT_CERT|PROXY|TRUSTED_HOST|DEFAULT_TIMEOUT|RETRIES))"
)
PIP_KEYS = frozenset(
    {"index-url", "extra-index-url", "cert", "client-cert", "proxy", "trusted-host", "timeout"}
    | {"default-timeout", "retries"}
)


def apt_sources() -> str:
    """This machine's Debian 12 sources, as one-line entries; on another release its mirror with
    Debian 12's suites."""
    columns = "$(REPO_URI) $(RELEASE) $(COMPONENT) $(LABEL)"
    listing = _output("apt-get", "indextargets", "--format", columns, "Created-By: Packages")
    rows = [line.split() for line in listing.splitlines()]
    rows = [row for row in rows if len(row) == 4 and row[3].startswith("Debian")]
    own = [f"deb {uri} {suite} {part}" for uri, suite, part, _ in rows if suite in SUITES]
    if not own:
        mirrors = {label: uri.rstrip("/") for uri, _, _, label in rows}
        own = [
            f"deb {mirrors['Debian' + tail.title()]} {suite} main"
            for suite, tail in SUITES.items()
            if "Debian" + tail.title() in mirrors
        ]
    return "\n".join(dict.fromkeys(own)) + "\n"


def apt_options() -> list[str]:
    """How this machine's apt reaches its mirrors: proxies, certificates, checks, retries."""
    dump = _output("apt-config", "dump", "--no-empty").splitlines()
    return [line.rstrip(";") for line in dump if APT_OPTIONS.match(line)]


def carry_files(root: Path) -> None:
    """Names, extra certificate authorities and pip's index settings."""
    for name in ("etc/resolv.conf", "etc/hosts"):
        shutil.copyfile(Path("/") / name, root / name)
    own = Path("/usr/local/share/ca-certificates")
    if own.is_dir():
        shutil.copytree(own, root / own.relative_to("/"), dirs_exist_ok=True)
    settings = pip_settings([Path("/etc/pip.conf"), Path.home() / ".config/pip/pip.conf"])
    with (root / "etc/pip.conf").open("w") as file:
        settings.write(file)


def pip_settings(files: list[Path]) -> configparser.RawConfigParser:
    """Where pip finds its indexes; what lies on this machine's own disk is left out, because a
    new machine does not have it."""
    merged = configparser.RawConfigParser()
    merged.read(files)
    kept = configparser.RawConfigParser()
    kept.add_section("global")
    for key, value in merged.items("global") if merged.has_section("global") else []:
        words = [word for word in value.split() if not word.startswith("file:")]
        if key in PIP_KEYS and words:
            kept.set("global", key, " ".join(words))
    return kept


def carried_environment(root: Path) -> dict[str, str]:
    """Variables for a command in the bare system; a path is carried only if it is there as well."""
    kept = {"HOME": "/root", "LANG": "C.UTF-8", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    for name, value in os.environ.items():
        exists = not value.startswith("/") or (root / value.lstrip("/")).exists()
        if VARIABLES.fullmatch(name) and exists and not value.startswith("file:"):
            kept[name] = value
    return kept


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
