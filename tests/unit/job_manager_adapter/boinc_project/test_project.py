"""config.xml of a project, and where files lie."""

from pathlib import Path

import pytest

from job_manager_adapter.boinc_project.project import load_project
from job_manager_adapter.boinc_project.settings import SettingsError
from job_manager_adapter.boinc_project.uploads import upload_path

CONFIG = (
    "<boinc><config><db_name>p</db_name><db_user>u</db_user><db_passwd>a &amp; b</db_passwd>"
    "<db_host>{host}</db_host><upload_dir>/srv/p/upload</upload_dir>"
    "<uldl_dir_fanout>{fanout}</uldl_dir_fanout></config></boinc>"
)


def test_files_are_spread_as_boinc_does() -> None:
    """MD5 of "example" is 1a79a4d60de6718e8e5b326e338ae533: 0xa79a4d6 % 1024 is 0xd6."""
    assert upload_path(Path("/u"), 1024, "example") == Path("/u/d6/example")
    assert upload_path(Path("/u"), 0, "example") == Path("/u/example")


@pytest.mark.parametrize(
    ("host", "found"),
    [("", ("", 3306)), ("localhost", ("", 3306)), ("db:3307", ("db", 3307)), ("db", ("db", 3306))],
)
def test_where_the_database_is(tmp_path: Path, host: str, found: tuple[str, int]) -> None:
    (tmp_path / "config.xml").write_text(CONFIG.format(host=host, fanout=1024))
    project = load_project(tmp_path)
    assert (project.db_host, project.db_port) == found
    assert (project.db_password, project.fanout) == ("a & b", 1024)
    assert "a & b" not in repr(project)


@pytest.mark.parametrize("fanout", ["-1", "x", "1e3", "٣", "99999999"])
def test_an_odd_fanout_is_named(tmp_path: Path, fanout: str) -> None:
    (tmp_path / "config.xml").write_text(CONFIG.format(host="", fanout=fanout))
    with pytest.raises(SettingsError, match="uldl_dir_fanout"):
        load_project(tmp_path)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"config\.xml"):
        load_project(tmp_path)
    (tmp_path / "config.xml").write_text("<boinc><config/></boinc>")
    with pytest.raises(SettingsError, match="upload_dir"):
        load_project(tmp_path)
