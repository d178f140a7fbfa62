"""Who may move which file, seen from the services."""

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from copilot_agent.protocol.errors import CopilotError, ErrorCode
from copilot_agent.protocol.job import InputFile, JobSpec, Limits, Output, OutputFile
from job_manager_adapter.files.links import READ, WRITE, LinkSigner
from job_manager_adapter.services.files import FileService, OutputTarget

JOB = "j-00000000000000000000"
DATA = b"half a million muons\n"
SHA = hashlib.sha256(DATA).hexdigest()
TARGET = OutputTarget("demo", JOB, 1, "mass.txt", 1000)


@pytest.fixture
def files(tmp_path: Path) -> FileService:
    return FileService(tmp_path, LinkSigner(b"k" * 32), base_url="http://127.0.0.1:1")


async def body(data: bytes = DATA) -> AsyncIterator[bytes]:
    yield data


async def nothing_in_use() -> set[str]:
    return set()


def spec(**fields: object) -> JobSpec:
    return JobSpec.model_validate({"experiment": "demo", "command": ["/bin/true"], **fields})


def with_input(sha256: str = SHA, size: int = len(DATA)) -> JobSpec:
    return spec(inputs=(InputFile(name="in.txt", sha256=sha256, size=size),))


async def test_an_uploaded_file_may_be_an_input(files: FileService) -> None:
    [missing] = await files.inputs_present("demo", with_input())
    assert missing.field == "inputs[0].sha256"
    assert "PUT" in missing.message
    await files.put_file("demo", SHA, 0, len(DATA), body())
    assert await files.inputs_present("demo", with_input()) == []
    [wrong] = await files.inputs_present("demo", with_input(size=1))
    assert wrong.field == "inputs[0].size"


async def test_another_experiments_file_is_not_there(files: FileService) -> None:
    await files.put_file("demo", SHA, 0, len(DATA), body())
    assert len(await files.inputs_present("other", with_input())) == 1
    with pytest.raises(CopilotError) as caught:
        files.file_state("other", SHA)
    assert caught.value.code == ErrorCode.NOT_FOUND
    with pytest.raises(CopilotError):
        files.blob_path(SHA, "other")
    assert files.blob_path(SHA, "demo").read_bytes() == DATA


async def test_a_hash_alone_opens_nothing(files: FileService) -> None:
    await files.put_file("demo", SHA, 0, len(DATA), body())
    with pytest.raises(CopilotError) as caught:
        await files.put_file("other", SHA, 0, len(DATA), body(b"x" * len(DATA)))
    assert caught.value.code == ErrorCode.HASH_MISMATCH
    await files.put_file("other", SHA, 0, len(DATA), body())
    assert await files.inputs_present("other", with_input()) == []


async def test_what_an_operator_brought_all_may_use(files: FileService) -> None:
    await files.put_file("", SHA, 0, len(DATA), body())
    assert await files.inputs_present("demo", with_input()) == []


async def test_an_output_is_there_when_size_and_hash_agree(files: FileService) -> None:
    said = Output(name="mass.txt", sha256=SHA, size=len(DATA))
    assert await files.outputs_present(JOB, 1, [said]) == ["mass.txt"]
    await files.put_output(TARGET, 0, len(DATA), SHA, body())
    assert await files.outputs_present(JOB, 1, [said]) == []
    other = said.model_copy(update={"size": 1})
    assert await files.outputs_present(JOB, 1, [other]) == ["mass.txt"]
    assert await files.outputs_present(JOB, 2, [said]) == ["mass.txt"]
    assert await files.inputs_present("demo", with_input()) == []


async def test_an_empty_output_need_not_be_uploaded(files: FileService) -> None:
    empty = Output(name="stderr.log", sha256=hashlib.sha256(b"").hexdigest(), size=0)
    assert await files.outputs_present(JOB, 1, [empty]) == []
    lie = empty.model_copy(update={"sha256": SHA})
    assert await files.outputs_present(JOB, 1, [empty, lie]) == ["stderr.log"]


async def test_an_output_is_written_once(files: FileService) -> None:
    await files.put_output(TARGET, 0, len(DATA), SHA, body())
    assert await files.put_output(TARGET, 0, len(DATA), SHA, body()) == len(DATA)
    with pytest.raises(CopilotError) as caught:
        await files.put_output(TARGET, 0, 1, hashlib.sha256(b"x").hexdigest(), body(b"x"))
    assert caught.value.code == ErrorCode.CONFLICT
    assert files.output(JOB, 1, "mass.txt")[1].read_bytes() == DATA


async def test_an_output_keeps_to_its_bound(files: FileService) -> None:
    with pytest.raises(CopilotError) as caught:
        await files.put_output(TARGET, 0, 1001, SHA, body())
    assert caught.value.code == ErrorCode.TOO_LARGE


async def test_discarded_outputs_are_gone(files: FileService) -> None:
    await files.put_output(TARGET, 0, len(DATA), SHA, body())
    await files.discard(JOB, 1)
    await files.discard(JOB, 1)
    assert files.stored_outputs(JOB, 1) == []


def test_links_name_every_file_and_both_logs(files: FileService) -> None:
    asked = spec(
        inputs=[
            {"name": "a", "sha256": SHA, "size": 1},
            {"name": "b", "sha256": SHA, "size": 1, "url": "https://example.org/b"},
        ],
        outputs=(OutputFile(name="out/mass.txt", optional=True),),
        limits=Limits(output_mib=3, log_mib=2),
    )
    first, second = files.inputs(JOB, asked, 1e9)
    assert second.url == "https://example.org/b"
    parts = urlsplit(first.url)
    with pytest.raises(CopilotError) as caught:
        files.check_link(READ, parts.path, dict(parse_qsl(parts.query)))
    assert caught.value.code == ErrorCode.LINK_EXPIRED
    outputs = {link.name: link for link in files.outputs(JOB, 7, asked, 4e9)}
    assert set(outputs) == {"out/mass.txt", "stdout.log", "stderr.log"}
    assert outputs["out/mass.txt"].max_bytes == 3 << 20
    assert outputs["out/mass.txt"].optional
    parts = urlsplit(outputs["out/mass.txt"].url)
    assert parts.path.endswith(f"/{JOB}/7/out/mass.txt")
    files.check_link(WRITE, parts.path, dict(parse_qsl(parts.query)))


async def test_clean_up_spares_outputs_and_inputs_in_use(
    tmp_path: Path, files: FileService
) -> None:
    waiting, old = b"input of a waiting job", b"of no use any more"
    hashes = [hashlib.sha256(data).hexdigest() for data in (waiting, old)]
    await files.put_output(TARGET, 0, len(DATA), SHA, body())
    for sha, data in zip(hashes, (waiting, old), strict=True):
        await files.put_file("demo", sha, 0, len(data), body(data))
    for path in (tmp_path / "blobs").glob("*/*/*"):
        os.utime(path, (0, 0))

    async def in_use() -> set[str]:
        return {hashes[0]}

    assert await files.clean(blob_days=14, output_days=30, in_use=in_use) == len(old)
    assert files.blob_path(SHA).exists()
    assert files.blob_path(hashes[0], "demo").exists()
    with pytest.raises(CopilotError):
        files.blob_path(hashes[1], "demo")


async def test_fresh_files_are_never_cleaned_up(files: FileService) -> None:
    await files.put_file("demo", SHA, 0, len(DATA), body())
    assert await files.clean(blob_days=14, output_days=30, in_use=nothing_in_use) == 0


async def test_the_tail_of_a_log(files: FileService) -> None:
    log = OutputTarget("demo", JOB, 1, "stdout.log", 1000)
    await files.put_output(log, 0, len(DATA), SHA, body())
    assert files.tail(JOB, 1, "stdout.log", 6) == "muons\n"
    assert files.tail(JOB, 2, "stdout.log", 6) is None


@pytest.mark.parametrize("job", ["../../etc", "j-../000000000000000", "j-" + "0" * 21, ""])
def test_a_job_that_is_no_id_never_becomes_a_path(files: FileService, job: str) -> None:
    with pytest.raises(ValueError, match="not a job id"):
        files.stored_outputs(job, 1)
