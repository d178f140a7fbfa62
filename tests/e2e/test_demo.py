"""The demo's whole path, small: what a visitor sees, and that nothing is left behind."""

from pathlib import Path

import pytest

from deploy.demo.summary import Summary
from tests.harness import programs
from tests.harness.demo import DemoProgram, as_it_should_be

pytestmark = pytest.mark.vm


@pytest.mark.parametrize(("transport", "carrier"), [("http", "websocket"), ("xmpp", "xmpp")])
async def test_two_jobs_through_a_real_vm(
    repository: Path, cache: Path, tmp_path: Path, temporary: Path, transport: str, carrier: str
) -> None:
    demo = DemoProgram(repository, cache, tmp_path / "out", temporary)
    code, said = await demo.run("--jobs", "2", "--events", "4", "--transport", transport)
    assert code == 0, said
    summary = Summary.model_validate_json((demo.out / "summary.json").read_bytes())
    assert summary.carrier == carrier
    as_it_should_be(summary, demo)
    assert "2 of 2 jobs succeeded" in said
    assert programs.naming(temporary) == []
    assert list(temporary.iterdir()) == []


async def test_a_missing_image_is_said_at_once(
    repository: Path, tmp_path: Path, temporary: Path
) -> None:
    (tmp_path / "wheels").mkdir()
    for tag in ("cp311", "cp313"):
        (tmp_path / "wheels" / f"pythia8mc-0-{tag}-{tag}-any.whl").write_bytes(b"")
    demo = DemoProgram(repository, tmp_path, tmp_path / "out", temporary)
    code, said = await demo.run()
    assert code == 1
    assert "the launcher ended" in said
    assert not (demo.out / "summary.json").exists()
