"""A private apt: its own configuration, sources, lists and (empty) status, for one suite.

The mirror and the proxy are those of the machine's own apt; every index is checked against
debian-archive-keyring by apt itself. Needs no root.
"""

from __future__ import annotations

import datetime as dt
import email.utils
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from deploy.image.lock import Package
from deploy.image.problems import BuildError

KEYRINGS = Path("/usr/share/keyrings")
# Settings of the machine that a private apt must share to reach the mirror at all.
_KEPT = re.compile(
    r"^Acquire::(https?::|https? |Retries |Check-Valid-Until |Check-Date |Max-ValidTime)", re.I
)
_CONFIG = """\
Dir "{root}";
Dir::Etc "{root}/etc";
Dir::Etc::main "/dev/null";
Dir::Etc::parts "{root}/etc/parts";
Dir::Etc::netrc "/etc/apt/auth.conf";
Dir::Etc::netrcparts "/etc/apt/auth.conf.d";
Dir::State "{root}/state";
Dir::State::status "{root}/state/status";
Dir::Cache "{root}/cache";
Dir::Cache::srcpkgcache "";
APT::Architecture "amd64";
APT::Architectures {{ "amd64"; }};
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
"""


@dataclass(frozen=True)
class Mirror:
    """Where this machine's apt gets Debian from; `security` is empty when it has no such source."""

    main: str
    security: str


def _run(args: list[str], config: Path | None = None, cwd: Path | None = None) -> str:
    env = {**os.environ, "LC_ALL": "C"}
    if config is not None:
        env["APT_CONFIG"] = str(config)
    done = subprocess.run(
        args,
        env=env,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode != 0:
        raise BuildError(
            f"{' '.join(args[:4])} failed: {(done.stderr or done.stdout).strip()[-600:]}",
            "check the network and the machine's apt sources (sudo apt-get update)",
        )
    return done.stdout


def machine_mirror() -> Mirror:
    """Ask the machine's apt for the mirror it uses."""
    listing = _run(["apt-get", "indextargets", "--format", "$(LABEL)|$(REPO_URI)"])
    main, security = "", ""
    for line in listing.splitlines():
        label, _, uri = line.partition("|")
        path = uri.rstrip("/").rpartition("/")[2]
        if label == "Debian-Security" or path == "debian-security":
            security = security or uri
        elif label == "Debian" or path == "debian":
            main = main or uri
    if not main:
        raise BuildError(
            "the machine's apt has no Debian source",
            "add one to /etc/apt/sources.list.d and run: sudo apt-get update",
        )
    return Mirror(main, security)


def _machine_settings() -> str:
    dump = _run(["apt-config", "dump"])
    return "".join(line + "\n" for line in dump.splitlines() if _KEPT.match(line))


def keyring_for(suite: str) -> Path:
    """The keyring file that signs `suite`, or an error with the remedy."""
    if not (KEYRINGS / f"debian-archive-{suite}-stable.gpg").is_file():
        raise BuildError(
            f"debian-archive-keyring on this machine does not know the keys of Debian {suite}",
            "sudo apt-get update && sudo apt-get install --only-upgrade debian-archive-keyring",
        )
    return KEYRINGS / "debian-archive-keyring.gpg"


class PrivateApt:
    """One suite with its updates and security archive."""

    def __init__(self, root: Path, suite: str) -> None:
        self.suite = suite
        self._root = root.resolve() / f"apt-{suite}"
        self._config = self._root / "apt.conf"

    def update(self, mirror: Mirror) -> None:
        """Write the configuration and fetch the signed indexes."""
        keyring = keyring_for(self.suite)
        for name in (
            "etc/parts",
            "etc/preferences.d",
            "state/lists/partial",
            "cache/archives/partial",
        ):
            (self._root / name).mkdir(parents=True, exist_ok=True)
        (self._root / "state/status").write_text("")
        self._config.write_text(_CONFIG.format(root=self._root) + _machine_settings())
        lines = [f"{mirror.main} {self.suite}", f"{mirror.main} {self.suite}-updates"]
        if mirror.security:
            lines.append(f"{mirror.security} {self.suite}-security")
        sources = "".join(f"deb [signed-by={keyring}] {line} main\n" for line in lines)
        (self._root / "etc/sources.list").write_text(sources)
        _run(["apt-get", "update", "-q", "--error-on=any"], self._config)

    def snapshot(self) -> dt.datetime:
        """The newest date in the release files."""
        dates = [
            email.utils.parsedate_to_datetime(line.partition(":")[2].strip())
            for path in sorted((self._root / "state/lists").glob("*_InRelease"))
            for line in path.read_text().splitlines()
            if line.startswith("Date:")
        ]
        if not dates:
            raise BuildError(f"no release file of {self.suite}", "delete the cache and try again")
        return max(dates).astimezone(dt.UTC)

    def candidate(self, name: str) -> Package:
        """The version that apt would install now."""
        return self._show(["apt-cache", "show", "--no-all-versions", name])

    def find(self, locked: Package) -> Package | None:
        """What the archive holds under the locked name and version, if it still does."""
        try:
            return self._show(["apt-cache", "show", f"{locked.name}={locked.version}"])
        except BuildError:
            return None  # apt fails for an unknown name, and is silent about an unknown version

    def concrete_name(self, meta: str) -> str:
        """The versioned package that a metapackage (of a kernel) depends on."""
        policy = _run(["apt-cache", "show", "--no-all-versions", meta], self._config)
        found = re.search(r"^Depends: (\S+)", policy, re.M)
        if found is None:
            raise BuildError(f"{meta} depends on nothing", "is the mirror complete?")
        return found.group(1)

    def download(self, packages: list[Package], into: Path) -> None:
        """Fetch .debs; apt checks each against the signed index."""
        into.mkdir(parents=True, exist_ok=True)
        wanted = [f"{package.name}={package.version}" for package in packages]
        _run(["apt-get", "download", "-q", *wanted], self._config, cwd=into)

    def _show(self, command: list[str]) -> Package:
        text = _run(command, self._config).split("\n\n")[0]
        fields = dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", text, re.M))
        if not fields:
            problem = f"apt knows no {command[-1]} in {self.suite}"
            raise BuildError(problem, "is the mirror complete?")
        return Package.model_validate(
            {
                "name": fields["Package"],
                "version": fields["Version"],
                "suite": self.suite,
                "size": fields["Size"],
                "sha256": fields["SHA256"],
            }
        )
