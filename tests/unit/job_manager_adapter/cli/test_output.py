"""Tables: one line a row on a terminal, whole lines elsewhere."""

import io

import pytest
from pydantic import BaseModel
from rich.console import Console

from job_manager_adapter.cli.output import Columns, show_rows


class Row(BaseModel):
    id: str = "j-01m83d2mtjecnwwa4kfa"
    message: str = ""


COLUMNS: Columns[Row] = {
    "JOB": lambda row: row.id,
    "STATE": lambda row: "succeeded",
    "PHASE": lambda row: "",
    "MESSAGE": lambda row: row.message,
}
LONG = Row(message="declared outputs are missing: " + "x" * 100)


def test_narrow_terminal_shortens_free_text_only() -> None:
    text = io.StringIO()
    console = Console(file=text, width=60)
    show_rows([Row(), LONG], COLUMNS, "table", lambda row: row.id, console=console)
    header, first, second = text.getvalue().splitlines()
    assert header.split() == ["JOB", "STATE", "MESSAGE"]
    assert first.split() == [LONG.id, "succeeded"]
    assert second.startswith(f"{LONG.id}  succeeded  declared") and second.endswith("…")


def test_pipe_gets_whole_lines(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows([LONG], COLUMNS, "table", lambda row: row.id)
    assert capsys.readouterr().out.splitlines()[1].rstrip().endswith("x" * 100)


def test_nothing_is_said_where_there_is_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows([], COLUMNS, "table", lambda row: row.id)
    assert capsys.readouterr() == ("", "none\n")
