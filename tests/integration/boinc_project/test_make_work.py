"""`make-work`, with a real `copilot-manager` and stand-ins for BOINC's stage_file and create_work.

The stand-ins write down what they are called with. As the real ones do, stage_file moves a file,
unless it is there already, and create_work refuses a name that it knows, in the database's words.
"""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from job_manager_adapter.boinc_project.names import workunit_name

STAND_IN = """#!{python}
import json, os, sys, time
with open("calls", "a") as calls:
    calls.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
if sys.argv[0].endswith("stage_file"):
    target = os.path.join("download", os.path.basename(sys.argv[1]))
    if not os.path.exists(target):
        os.rename(sys.argv[1], target)
    elif open(target).read() != open(sys.argv[1]).read():
        sys.exit("There is already a file with that name, but with different contents.")
    sys.exit()
name = sys.argv[4]
if os.path.exists("full") and len(open("calls").readlines()) > 2:
    sys.exit("the database is full")
known = open("workunits").read().split() if os.path.exists("workunits") else []
if name in known:
    sys.exit(f"Database error: Duplicate entry '{{name}}' for key 'name'\\nquery=insert into …")
with open("workunits", "a") as workunits:
    print(name, file=workunits)
"""
BROKEN = """#!/bin/sh
printf 'first\\nTraceback (most recent call last):\\n  inside\\nKeyError: 7\\n' >&2
exit 3
"""
CONFIG = 'data_dir = "{data}"\n[experiments.demo]\n'


@pytest.fixture
def project(tmp_path: Path, repository: Path) -> Path:
    folder = tmp_path / "project"
    for name in ("bin", "download"):
        (folder / name).mkdir(parents=True)
    for name in ("stage_file", "create_work"):
        (folder / "bin" / name).write_text(STAND_IN.format(python=sys.executable))
        (folder / "bin" / name).chmod(0o755)
    shutil.copy(repository / "deploy/boinc/make-work", folder / "bin")
    (tmp_path / "manager.toml").write_text(CONFIG.format(data=tmp_path / "data"))
    (tmp_path / "data/keys").mkdir(parents=True)  # as of a manager that has served
    return folder


def make_work(project: Path, *words: object) -> tuple[int, str, str]:
    """In the directory above the project; copilot-manager is not in PATH."""
    done = subprocess.run(
        [sys.executable, project / "bin/make-work", "--results", "3", *map(str, words)],
        cwd=project.parent,
        env={**os.environ, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def manager(project: Path, *words: str) -> str:
    """What `copilot-manager enrolment` says."""
    command = [sys.executable, "-m", "job_manager_adapter.cli.manager"]
    config = project.parent / "manager.toml"
    return subprocess.run(
        [*command, "--config", config, "enrolment", *words],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip


def calls(project: Path) -> list[list[str]]:
    return [json.loads(line) for line in (project / "calls").read_text().splitlines()]


def test_each_workunit_brings_a_secret_of_its_own(project: Path) -> None:
    config = project.parent / "manager.toml"
    code, out, err = make_work(
        project, "--count", 2, "--label", "May", "--manager-config", config, "--", "--batch", "7"
    )
    assert (code, err) == (0, "make-work: 2 made\n")
    known = json.loads(manager(project, "list", "--output", "json"))
    assert sorted(out.split()) == sorted(view["id"] for view in known)
    assert {(view["label"], view["launchers_allowed"]) for view in known} == {("May", 3)}
    staged = sorted((project / "download").iterdir())
    assert len({file.read_text() for file in staged}) == 2
    created = [call for call in calls(project) if call[0] == "create_work"]
    assert [call[-1] for call in created] == [file.name for file in staged]
    line = " ".join(created[0])
    assert f"--appname copilot --wu_name {workunit_name(out.split()[0])} --min_quorum 1" in line
    assert "--max_total_results 3" in line and "--batch 7" in line
    for file in staged:  # the web server can read it, and nobody can guess its name
        assert stat.S_IMODE(file.stat().st_mode) == 0o644
        assert re.fullmatch(r"copilot_e-[0-9a-z]{20}_[0-9a-f]{32}", file.name)
        assert file.read_text().strip() not in (project / "calls").read_text() + out
    assert sorted(path.name for path in project.iterdir()) == [
        "bin", "calls", "download", "workunits",
    ]  # fmt: skip


def test_secrets_from_the_managers_machine(project: Path) -> None:
    made = project.parent / "secrets"
    manager(project, "create", "--count", "2", "--launchers", "3", "--directory", str(made))
    secrets = {path.read_text() for path in made.iterdir()}
    code, _, err = make_work(project, "--secrets", made)
    assert (code, err) == (0, "make-work: 2 made\n")
    assert {file.read_text() for file in (project / "download").iterdir()} == secrets
    assert list(made.iterdir()) == []


def test_after_a_failure_the_rest_can_be_made(project: Path) -> None:
    (project / "full").touch()
    code, out, err = make_work(
        project, "--count", 3, "--manager-config", project.parent / "manager.toml"
    )
    assert code == 1 and "create_work ended with 1: the database is full" in err
    assert len(out.split()) == 1
    (left,) = project.glob("copilot-secrets-*")
    assert f"secrets left in {left}: 2" in err
    (project / "full").unlink()
    assert make_work(project, "--secrets", left)[0] == 0
    created = [call[4] for call in calls(project) if call[0] == "create_work"]
    assert len(created) == 4 and len(set(created)) == 3
    assert len(list((project / "download").iterdir())) == 3, "a file was staged twice"
    assert not left.exists(), "nothing is in it any more"


def test_a_dry_run_makes_nothing(project: Path) -> None:
    code, out, _ = make_work(project, "--count", 2, "--dry-run")
    assert code == 0 and "enrolment create --count 2 --launchers 3" in out
    assert "bin/create_work --appname copilot --wu_name" in out
    assert sorted(path.name for path in project.iterdir()) == ["bin", "download"]


def test_a_file_that_is_no_secret_is_not_sent_out(project: Path) -> None:
    made = project.parent / "secrets"
    made.mkdir()
    (made / f"e-{'0' * 20}.secret").write_text("root:x:0:0:root:/root:/bin/bash\n")
    (made / "notes.txt").write_text("mine")
    code, _, err = make_work(project, "--secrets", made)
    assert code == 1 and "holds no enrolment secret" in err and "bash" not in err
    assert list((project / "download").iterdir()) == []
    assert not (project / "calls").exists()


def test_a_directory_that_is_no_project_is_said(project: Path) -> None:
    made = project.parent / "secrets"
    made.mkdir()
    (made / f"e-{'0' * 20}.secret").write_text("s" * 43)
    (project / "bin/stage_file").unlink()
    code, _, err = make_work(project, "--secrets", made)
    assert code == 1 and "bin/stage_file cannot be run" in err and "--project" in err


def one_secret(project: Path) -> Path:
    made = project.parent / "secrets"
    manager(project, "create", "--launchers", "3", "--directory", str(made))
    return made


def test_what_was_made_just_before_an_interruption_is_recognised(project: Path) -> None:
    made = one_secret(project)
    (secret,) = made.iterdir()
    kept = secret.read_bytes()
    assert make_work(project, "--secrets", made)[0] == 0
    secret.write_bytes(kept)  # as if it had been killed before it took the secret away
    assert make_work(project, "--secrets", made)[::2] == (0, "make-work: 1 made\n")
    assert list(made.iterdir()) == []
    assert len(list((project / "download").iterdir())) == 1
    assert (project / "workunits").read_text().split() == [workunit_name(secret.stem)]


def test_paths_are_those_of_the_caller(project: Path) -> None:
    words = ("--project", "project", "--manager-config", "manager.toml", "--count", 1)
    assert make_work(project, *words)[0] == 0
    one_secret(project)
    assert make_work(project, "--project", "project", "--secrets", "secrets")[0] == 0
    assert len((project / "workunits").read_text().split()) == 2


def test_a_manager_that_fails_leaves_nothing_behind(project: Path) -> None:
    broken = project.parent / "broken"
    broken.write_text(BROKEN)
    broken.chmod(0o755)
    code, _, err = make_work(project, "--count", 1, "--manager", "./broken")
    assert code == 1 and f"{broken} ended with 3: first\nKeyError: 7" in err
    assert "Traceback" not in err and "inside" not in err
    code, _, err = make_work(project, "--count", 1, "--manager", "nowhere")
    assert code == 1 and "say --manager PROGRAM" in err
    assert sorted(path.name for path in project.iterdir()) == ["bin", "download"]


def test_without_a_manager_it_says_which_flag_names_one(project: Path) -> None:
    python = project.parent / "environment/bin/python"  # beside it there is no copilot-manager
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    done = subprocess.run(
        [python, project / "bin/make-work", "--results", "3", "--count", "1"],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and "--manager PROGRAM" in done.stderr
    assert sorted(path.name for path in project.iterdir()) == ["bin", "download"]


def test_a_directory_without_a_secret_is_said(project: Path) -> None:
    (project.parent / "README").write_text("no secret")
    code, _, err = make_work(project, "--secrets", project.parent)
    assert code == 1 and f"there is no secret in {project.parent}" in err


def test_a_template_that_allows_other_results_is_said(project: Path) -> None:
    (project / "templates").mkdir()
    template = project / "templates/copilot_in"
    limit = "<max_total_results>{}</max_total_results>"
    template.write_text(f"<workunit>{limit.format(5)}</workunit>")
    code, _, err = make_work(project, "--count", 1, "--dry-run")
    assert code == 0 and "max_total_results is 5 in templates/copilot_in" in err
    template.write_text(f"<workunit>{limit.format(3)}</workunit>")
    assert make_work(project, "--count", 1, "--dry-run")[2] == ""


def test_the_managers_own_words_are_passed_on(project: Path) -> None:
    config = project.parent / "other.toml"
    config.write_text(CONFIG.format(data=project.parent / "nowhere"))
    code, _, err = make_work(project, "--count", 1, "--manager-config", config)
    assert code == 1 and "no manager has ever served with the data directory" in err
    assert sorted(path.name for path in project.iterdir()) == ["bin", "download"]
