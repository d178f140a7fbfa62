"""Job files: what comes of them, and what is refused with the field named."""

import hashlib
from pathlib import Path

import pytest

from copilot_agent.protocol.errors import CopilotError
from job_manager_adapter.client.jobfile import build_job_file, expand, read_job_file

JOB = """
experiment = "demo"
name = "scan-{seed}"
command = ["python3", "run.py", "--seed", "{seed}", "--keep", "{this}"]
inputs = [{ path = "run.py" }, { path = "sub/tools.zip", name = "tools", unpack = true }]
outputs = [{ name = "out.json" }]
requirements = { memory_mib = 300 }
sweep = { seed = [1, 2], energy = [7, 13] }
"""


def write(directory: Path, text: str = JOB) -> Path:
    (directory / "run.py").write_text("print(1)\n")
    (directory / "sub").mkdir(exist_ok=True)
    (directory / "sub" / "tools.zip").write_bytes(b"zip")
    path = directory / "job.toml"
    path.write_text(text)
    return path


def test_sweep_makes_one_job_for_each_combination(tmp_path: Path) -> None:
    submission = expand(read_job_file(write(tmp_path)), tmp_path)
    assert [spec.name for spec in submission.specs] == ["scan-1", "scan-1", "scan-2", "scan-2"]
    assert submission.specs[2].command == ("python3", "run.py", "--seed", "2", "--keep", "{this}")


def test_inputs_are_hashed_once_and_named(tmp_path: Path) -> None:
    submission = expand(read_job_file(write(tmp_path)), tmp_path)
    script = hashlib.sha256(b"print(1)\n").hexdigest()
    assert submission.uploads[script] == tmp_path / "run.py"
    names = {file.name: file for file in submission.specs[0].inputs}
    assert names["run.py"].sha256 == script
    assert names["run.py"].size == 9
    assert names["tools"].unpack


@pytest.mark.parametrize(
    ("array", "values"),
    [("1-3", ["1", "2", "3"]), ("0-90:30", ["0", "30", "60", "90"]), ("5-5", ["5"])],
)
def test_array(array: str, values: list[str]) -> None:
    job = {"experiment": "demo", "command": ["echo", "{array}"]}
    submission = expand(build_job_file(job, array=array), Path())
    assert [spec.command[1] for spec in submission.specs] == values


def test_slips_in_a_job_file_are_named() -> None:
    job = {"experiment": "demo", "commnad": ["x"], "requirements": {"memory": 1}}
    with pytest.raises(CopilotError) as refused:
        expand(build_job_file(job), Path())
    assert {error.field: error.message for error in refused.value.errors} == {
        "command": "is missing",
        "commnad": "no such field; command?",
        "requirements.memory": "no such field; memory_mib?",
    }


@pytest.mark.parametrize("array", ["3-1", "1-2:0", "1-999999999", "1-9999999999999999"])
def test_absurd_arrays_are_refused(array: str) -> None:
    job = {"experiment": "demo", "command": ["echo"]}
    with pytest.raises(CopilotError, match="array"):
        expand(build_job_file(job, array=array), Path())


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"experiment": "Demo!"}, "experiment"),
        ({"command": []}, "command"),
        ({"colour": "red"}, "colour"),
        ({"requirements": {"cores": 0}}, "requirements.cores"),
        ({"requirements": {"memory_mib": 10**9}}, "requirements.memory_mib"),
        ({"outputs": [{"name": "../../etc/passwd"}]}, "outputs[0].name"),
        ({"outputs": [{"name": "a\nb"}]}, "outputs[0].name"),
        ({"name": "x" * 10_000}, "name"),
        ({"environment": {"A=B": "x"}}, "environment.A=B"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, object], field: str) -> None:
    job = {"experiment": "demo", "command": ["echo"], **change}
    with pytest.raises(CopilotError) as caught:
        expand(build_job_file(job), Path())
    assert [error.field for error in caught.value.errors] == [field]


def test_missing_input_names_the_path(tmp_path: Path) -> None:
    file = build_job_file({"experiment": "demo", "command": ["x"]}, inputs=[{"path": "nowhere"}])
    with pytest.raises(CopilotError, match="nowhere is no file"):
        expand(file, tmp_path)


def test_input_with_another_hash_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    inputs = [{"path": "a", "sha256": "0" * 64}]
    file = build_job_file({"experiment": "demo", "command": ["x"]}, inputs=inputs)
    with pytest.raises(CopilotError, match="SHA-256"):
        expand(file, tmp_path)


def test_url_needs_hash_and_size() -> None:
    with pytest.raises(CopilotError) as caught:
        build_job_file({}, inputs=[{"url": "https://example.org/x.lhe"}])
    assert "sha256" in caught.value.errors[0].message


def test_broken_toml_names_the_line(tmp_path: Path) -> None:
    with pytest.raises(CopilotError, match="line 1"):
        read_job_file(write(tmp_path, "experiment = \n"))
