"""Archives of original agents become outputs, within the job's bounds."""

import io
import tarfile
from pathlib import Path

import pytest

from copilot_agent.protocol.errors import CopilotError, ErrorCode
from copilot_agent.protocol.job import STDERR, STDOUT, FailureClass, JobSpec
from job_manager_adapter.core.copilot1.reporting import TakenIn
from job_manager_adapter.files.links import LinkSigner
from job_manager_adapter.services.files import FileService
from job_manager_adapter.transports.copilot1.chirp import ChirpRoot
from job_manager_adapter.transports.copilot1.intake import Intake, scratch_of

KEY = ("j-" + "0" * 20, 1)
JOB_ID = f"{KEY[0]}.1.{'0' * 24}"
MIB = 1 << 20
SPEC = JobSpec.model_validate(
    {
        "experiment": "demo",
        "command": ["x"],
        "outputs": [{"name": "mass.txt"}, {"name": "big.bin", "optional": True}],
        "requirements": {"disk_mib": 64},
        "limits": {"output_mib": 1, "log_mib": 1},
    }
)


class Desk:
    def __init__(self, root: Path, floor_bytes: int = 0) -> None:
        self.files = FileService(root / "files", LinkSigner(bytes(32)), floor_bytes=floor_bytes)
        (root / "chirp").mkdir()
        chirp = ChirpRoot(root / "chirp", "address:*")
        chirp.prepare()
        chirp.receive(JOB_ID)
        self.place = root / "chirp" / JOB_ID / f"{JOB_ID}.tgz"
        self.scratch = scratch_of(root)
        self.intake = Intake(self.files, chirp, self.scratch)

    async def take(self, **files: bytes) -> TakenIn:
        """What the agent has packed; nothing for no archive."""
        with tarfile.open(self.place, "w:gz") as archive:
            for name, content in files.items():
                info = tarfile.TarInfo("./" + name.replace("_", "."))
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        return await self.intake.take_in(JOB_ID, KEY, SPEC)

    def content(self, name: str) -> bytes:
        return self.files.output(*KEY, name)[1].read_bytes()


async def test_outputs_and_logs_are_stored_under_our_names(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    taken = await desk.take(mass_txt=b"91.19\n", stdout=b"hello\n", stderr=b"", others=b"x")
    assert {output.name for output in taken.outputs} == {"mass.txt", STDOUT, STDERR}
    assert not taken.problem
    assert (desk.content("mass.txt"), desk.content(STDOUT)) == (b"91.19\n", b"hello\n")
    assert await desk.files.outputs_present(*KEY, taken.outputs) == []
    assert list(desk.scratch.iterdir()) == []
    again = await desk.take(mass_txt=b"91.20\n", stdout=b"hello\n", stderr=b"")
    assert desk.content("mass.txt") == b"91.20\n", "what was not reported may be replaced"
    assert await desk.files.outputs_present(*KEY, again.outputs) == []


async def test_what_is_too_large_is_left_out(tmp_path: Path) -> None:
    taken = await Desk(tmp_path).take(mass_txt=b"1", stdout=b"", big_bin=bytes(2 * MIB))
    assert taken.failure_class is FailureClass.PAYLOAD_LIMIT
    assert "big.bin" in taken.problem
    assert "mass.txt" in {output.name for output in taken.outputs}


async def test_long_logs_lose_their_middle(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    await desk.take(mass_txt=b"1", stdout=b"first" + b"." * 3 * MIB + b"last")
    log = desk.content(STDOUT)
    assert len(log) <= MIB
    assert log.startswith(b"first") and log.endswith(b"last") and b"cut" in log


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b broken"])
async def test_without_a_good_archive_there_are_empty_logs(tmp_path: Path, content: bytes) -> None:
    desk = Desk(tmp_path)
    desk.place.write_bytes(content)
    taken = await desk.intake.take_in(JOB_ID, KEY, SPEC)
    assert {output.name: output.size for output in taken.outputs} == {STDOUT: 0, STDERR: 0}
    assert taken.failure_class is FailureClass.STAGE_OUT and taken.problem
    desk.place.unlink()
    taken = await desk.intake.take_in(JOB_ID, KEY, SPEC)
    assert taken.failure_class is FailureClass.STAGE_OUT and "not there" in taken.problem


async def test_what_unpacks_to_more_than_the_jobs_disk_is_refused(tmp_path: Path) -> None:
    taken = await Desk(tmp_path).take(mass_txt=b"1", bomb=bytes(80 * MIB))
    assert taken.failure_class is FailureClass.STAGE_OUT
    assert "unpacks to more" in taken.problem


async def test_a_full_disk_is_not_the_jobs_fault(tmp_path: Path) -> None:
    desk = Desk(tmp_path, floor_bytes=1 << 60)
    with pytest.raises(CopilotError) as caught:
        await desk.take(mass_txt=b"1")
    assert caught.value.code is ErrorCode.NO_SPACE
