"""Receipts that share a signature are each as good as one of its own."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from copilot_agent.protocol.job import Requirements, Usage
from copilot_agent.protocol.receipt import Receipt
from job_manager_adapter.client import ReceiptError, verify_receipt
from job_manager_adapter.core.fleet import Pilot
from job_manager_adapter.core.leases import Lease
from job_manager_adapter.core.matching import RequirementClass
from job_manager_adapter.services.context import Ed25519Signer
from job_manager_adapter.services.receipts import Draft, Receipts
from tests.harness.stores import ident, report
from tests.unit.job_manager_adapter.services.world import Clock, CountingIds, World

SIGNER = Ed25519Signer(Ed25519PrivateKey.from_private_bytes(b"m" * 32))


def drafts(count: int) -> tuple[Receipts, list[Draft]]:
    clock = Clock()
    receipts = Receipts(clock, CountingIds(clock), SIGNER)
    klass = RequirementClass(1, "lhc-1", Requirements(cores=2))
    found = []
    for number in range(count):
        pilot = Pilot(ident("p", number), "h", ident("e", 1), "k" * 43, *[None] * 2)  # type: ignore[arg-type]
        since = clock.monotonic() - 7
        lease = Lease(ident("j", number), 1, pilot.id, klass, 0, since, 200.1, 300.0, 60.0)
        usage = Usage(cpu_seconds=number * 0.7 + 1 / 3)
        draft = receipts.draft(pilot, lease, report(lease.job, usage=usage))
        assert draft is not None
        found.append(draft)
    return receipts, found


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 33, 64, 300])
def test_each_of_many_can_be_checked_alone(count: int) -> None:
    receipts, wanted = drafts(count)
    signed = receipts.sign(wanted)
    assert [one.job for one in signed] == [draft.lease.job for draft in wanted]
    for one in signed:
        receipt = Receipt.model_validate_json(one.body)
        assert (receipt.proof is None) == (count == 1)
        assert receipt.statement.canonical() in one.body.encode()  # what is sent is what was signed
        verify_receipt(receipt, SIGNER.public_key)


@pytest.mark.parametrize("change", ["granted", "job", "proof", "another's proof"])
def test_what_was_changed_is_refused(change: str) -> None:
    receipts, wanted = drafts(6)
    good, other = (Receipt.model_validate_json(one.body) for one in receipts.sign(wanted)[:2])
    assert good.proof is not None and other.proof is not None
    changes: dict[str, dict[str, object]] = {
        "granted": {"statement": good.statement.model_copy(update={"granted": 1e6})},
        "job": {"statement": good.statement.model_copy(update={"job": ident("j", 9)})},
        "proof": {"proof": good.proof[:-43] or None},
        "another's proof": {"proof": other.proof},
    }
    with pytest.raises(ReceiptError):
        verify_receipt(good.model_copy(update=changes[change]), SIGNER.public_key)


async def test_a_launcher_that_keeps_nothing_costs_no_memory_and_loses_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("job_manager_adapter.services.outbox.MAX_RECEIPTS", 3)
    monkeypatch.setattr("job_manager_adapter.services.receipts.MAX_RECEIPTS", 3)
    pilot = await world.pilot()
    jobs = (await world.submit(8)).jobs
    told, kept = set[str](), set[str]()
    for job in jobs:
        await pilot.hear()
        frame = await pilot.finish(job)
        told.update(receipt.statement.id for receipt in frame.receipts)
    assert len(told) == 3
    for _ in range(20):
        kept |= told
        answer = await pilot.say(receipts_kept=tuple(sorted(told)))
        told = {receipt.statement.id for receipt in answer.receipts} if answer else set()
        assert len(told) <= 3
    assert len(kept) == len(jobs)
