"""What tests put into a store, and short ways to do it."""

import hashlib

from copilot_agent.protocol.capabilities import Capabilities
from copilot_agent.protocol.frames import Report
from copilot_agent.protocol.ids import make_id
from copilot_agent.protocol.job import (
    JobState,
    Outcome,
    Output,
    Requirements,
    Usage,
)
from copilot_agent.protocol.receipt import Receipt, Statement
from job_manager_adapter.store.base import Store
from job_manager_adapter.store.fleet_records import EnrolmentRow, NewPilot
from job_manager_adapter.store.records import Claim, Claimed, NewJob, SignedReceipt, Submission

OUTPUT = Output(name="stdout.log", sha256="a" * 64, size=3)
KEY = "k" * 43


def ident(kind: str, number: int) -> str:
    return make_id(kind, 1.0, number)


def new_job(number: int, **fields: object) -> NewJob:
    return NewJob(
        **{  # type: ignore[arg-type]
            "id": ident("j", number),
            "experiment": "lhc",
            "name": f"job-{number}",
            "spec": b'{"experiment": "lhc", "command": ["true"]}',
            "requirements": Requirements(),
            "priority": 0,
            "max_attempts": 3,
            "pause_seconds": 600.0,
            **fields,
        }
    )


async def submit(store: Store, *jobs: NewJob, key: str | None = None, digest: str = "") -> None:
    batch = ident("b", int(jobs[0].id[-3:], 36))
    await store.submit([Submission(batch, jobs, 100.0, "owner", key, digest)])


async def claim(store: Store, pilot: str = "p-1", count: int = 1, klass: int = 1) -> list[Claimed]:
    return (await store.claim([Claim(pilot, klass, count, 200.0)]))[0]


def report(job: str, attempt: int = 1, **fields: object) -> Report:
    values = {
        "job": job,
        "attempt": attempt,
        "outcome": Outcome.SUCCEEDED,
        "exit_code": 0,
        "usage": Usage(cpu_seconds=5.0),
        "outputs": (OUTPUT,),
        **fields,
    }
    return Report.model_validate(values)


def receipt(job: str, number: int = 1, launcher: str = KEY) -> SignedReceipt:
    return earned(job, number, launcher=launcher)


def earned(job: str, number: int = 1, **fields: object) -> SignedReceipt:
    values = {
        "key": KEY,
        "id": ident("r", number),
        "enrolment": ident("e", 1),
        "launcher": KEY,
        "pilot": ident("p", 1),
        "experiment": "lhc",
        "job": job,
        "attempt": 1,
        "cpu_seconds": 5.0,
        "granted": 2.5,
        "leased_at": 200.0,
        "accepted_at": 300.0,
        **fields,
    }
    statement = Statement.model_validate(values)
    return SignedReceipt.of(Receipt(statement=statement, signature="s" * 86))


async def state(store: Store, job: str) -> JobState:
    row = await store.job(job)
    assert row is not None
    return row.state


def pilot(number: int, launcher: str = "l", word: str = "s", at: float = 10.0) -> NewPilot:
    return NewPilot(
        id=ident("p", number),
        key=KEY,
        launcher_key=launcher.ljust(43, "_"),
        secret_sha256=hashlib.sha256(word.encode()).hexdigest(),
        host=ident("h", number),
        capabilities=Capabilities(cores=2, memory_mib=100, disk_mib=100),
        at=at,
        max_boots=3,
    )


async def enrolment(store: Store, word: str = "s", allowed: int = 1) -> str:
    row = EnrolmentRow(
        id=ident("e", len(await store.enrolments()) + 1),
        secret_sha256=hashlib.sha256(word.encode()).hexdigest(),
        label="box",
        created_at=1.0,
        expires_at=1000.0,
        launchers_allowed=allowed,
    )
    await store.add_enrolments([row])
    return row.id
