"""`[copilot1]`: the manager's account for original agents, off without this section."""

import ipaddress
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from copilot_agent.protocol.base import Strict
from copilot_agent.protocol.copilot1.fields import ChirpUrl, GuestPath, shaped
from copilot_agent.protocol.ids import ExperimentName

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_NAME = r"[A-Za-z0-9._+-]{1,256}"
BareJid = Annotated[
    str, shaped(rf"{_NAME}@{_LABEL}(?:\.{_LABEL})*", "an address, as in jm@copilot.example.org")
]
Resource = Annotated[str, shaped(r"[A-Za-z0-9._-]{1,64}", "a word of letters, digits and ._-")]
Host = Annotated[str, shaped(r"[A-Za-z0-9.:-]{1,253}", "a host's name or address")]
Subject = Annotated[
    str, shaped(r"[a-z]+:[A-Za-z0-9.*_/=:@-]{1,200}", "a subject of Chirp, as in address:*")
]
Room = Annotated[
    str,
    shaped(rf"{_NAME}@{_LABEL}(?:\.{_LABEL})*", "a room, as in pit@conference.copilot.example.org"),
]
Lower = AfterValidator(str.lower)
Seconds = Annotated[float, Field(gt=0, le=30 * 86400)]


class Copilot1(Strict):
    jid: Annotated[BareJid, Lower]
    """The account of all instances, on the virtual host of the agents."""
    resource: Resource = "alpha"
    """Of this instance; each manager process on the account has its own."""
    password_file: Path
    host: Host = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 5222
    ca_file: Path | None = None
    """PEM of those who may sign the XMPP server's certificate; else the system's."""
    insecure: bool = False
    """No TLS, or TLS with whatever certificate: for a server on this computer only."""
    experiments: Annotated[tuple[ExperimentName, ...], Field(min_length=1, max_length=100)]
    """Whose jobs original agents get."""
    chirp_root: Path
    """The directory that chirp_server serves (-r)."""
    chirp_address: ChirpUrl
    """Where agents reach chirp_server, host:port."""
    chirp_subject: Subject = "address:*"
    """Who they are there; a narrower one, such as address:192.0.2.*, is better."""
    require_file: GuestPath | None = None
    """Only agents with this file in their machine take jobs."""
    storage_manager: Annotated[BareJid, Lower] | None = None
    """Agents bring their outputs there: the account of other managers on the same database."""
    cores: Annotated[int, Field(ge=1, le=1024)] = 1
    """What an agent has for its one job; it does not say."""
    memory_mib: Annotated[int, Field(ge=16, le=1 << 20)] = 2048
    """Where an agent does not say."""
    disk_mib: Annotated[int, Field(ge=1, le=1 << 24)] = 10240
    """Where an agent does not say."""
    offer_seconds: Annotated[float, Field(gt=0, le=50)] = 20.0
    """How long a getJob waits for a claim; agents wait 60 s."""
    job_seconds: Seconds = 86400.0
    """How long an agent keeps a job at most; it cannot say that it lives."""
    restart_seconds: Annotated[float, Field(ge=0, le=3600)] = 30.0
    """An agent that asks again later than this after it was given a job has been restarted."""
    gone_seconds: Seconds = 900.0
    """How long it keeps one after the XMPP server has said that it is not connected any more."""

    room: Room | None = None
    """A chat room in which Heartbeat is answered."""
    monitor: Annotated[BareJid, Lower] | None = None
    """The account of a monitor of the original, which is told what happens."""
    monitor_details: bool = False
    """It is told about each pilot by itself, too."""

    @model_validator(mode="after")
    def _encrypted(self) -> Self:
        if self.insecure and not self.loopback:
            raise ValueError(
                f"insecure = true is for a server on this computer, and {self.host} is not: "
                "take it out, and give ca_file if the certificate is not signed publicly"
            )
        return self

    @property
    def loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def domain(self) -> str:
        return self.jid.partition("@")[2]
