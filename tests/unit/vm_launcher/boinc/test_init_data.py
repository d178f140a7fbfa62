"""init_data.xml: what a client writes, and what it never should."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vm_launcher.boinc.errors import InitDataError
from vm_launcher.boinc.init_data import MOST_BYTES, InitData, parse_init_data, read_init_data

WHOLE = """<app_init_data>
<major_version>7</major_version>
<userid>4</userid>
<teamid>2</teamid>
<hostid>17</hostid>
<app_name>copilot</app_name>
<project_preferences>
<hostid>666</hostid><br> & raw <unclosed>
</project_preferences>
<user_name>J&#233;r&#244;me &lt;b&gt; &amp; co</user_name>
<project_dir>/var/lib/boinc/projects/example.org_copilot</project_dir>
<boinc_dir>/var/lib/boinc</boinc_dir>
<authenticator>0123456789abcdef0123456789abcdef</authenticator>
<wu_name>copilot_e-01hx</wu_name>
<result_name>copilot_e-01hx_0</result_name>
<shm_key>-1</shm_key>
<slot>3</slot>
<client_pid>4711</client_pid>
<wu_cpu_time>12.500000</wu_cpu_time>
<starting_elapsed_time>20.250000</starting_elapsed_time>
<using_sandbox>0</using_sandbox>
<vm_extensions_disabled>0</vm_extensions_disabled><user_total_credit>9.000000</user_total_credit>
<checkpoint_period>0.000000</checkpoint_period>
<fraction_done_start>0.000000</fraction_done_start>
<fraction_done_end>1.000000</fraction_done_end>
<gpu_type></gpu_type>
<ncpus>2.000000</ncpus>
<rsc_memory_bound>1073741824.000000</rsc_memory_bound>
<rsc_disk_bound>8000000000.000000</rsc_disk_bound>
<computation_deadline>1785542400.000000</computation_deadline>
<host_info>
    <p_ncpus>8</p_ncpus>
    <m_nbytes>16000000000.000000</m_nbytes>
</host_info>
<global_preferences>
   <leave_apps_in_memory>1</leave_apps_in_memory>
   <max_ncpus_pct>0.000000</max_ncpus_pct>
   <disk_interval>60.000000</disk_interval>
   <ram_max_used_busy_pct>50.000000</ram_max_used_busy_pct>
   <ram_max_used_idle_pct>0.000000</ram_max_used_idle_pct>
   <max_bytes_sec_up>1000.000000</max_bytes_sec_up>
   <max_bytes_sec_down>0.000000</max_bytes_sec_down>
   <cpu_usage_limit>75.000000</cpu_usage_limit>
   <daily_xfer_limit_mb>500.000000</daily_xfer_limit_mb>
   <daily_xfer_period_days>30</daily_xfer_period_days>
</global_preferences>
<app_file>receipts</app_file>
</app_init_data>
"""


def test_what_a_client_writes() -> None:
    data = parse_init_data(WHOLE)
    assert (data.userid, data.teamid, data.hostid) == (4, 2, 17)
    assert data.user_name == "Jérôme <b> & co"
    assert data.project_dir.endswith("/example.org_copilot")
    assert (data.wu_name, data.result_name) == ("copilot_e-01hx", "copilot_e-01hx_0")
    assert (data.shm_key, data.slot, data.client_pid) == (-1, 3, 4711)
    assert (data.wu_cpu_time, data.starting_elapsed_time) == (12.5, 20.25)
    assert (data.ncpus, data.rsc_memory_bound, data.rsc_disk_bound) == (2, 1 << 30, 8e9)
    assert (data.p_ncpus, data.m_nbytes) == (8, 16e9)


def test_preferences_and_what_0_means_in_them() -> None:
    data = parse_init_data(WHOLE)
    assert (data.cpu_usage_limit, data.max_ncpus_pct) == (75, 100)
    assert (data.ram_max_used_busy_frac, data.ram_max_used_idle_frac) == (0.5, 1)
    assert (data.max_bytes_sec_up, data.max_bytes_sec_down) == (1000, 0)
    assert (data.daily_xfer_limit_mb, data.daily_xfer_period_days) == (500, 30)
    assert data.leave_apps_in_memory
    assert data.checkpoint_period == 300


def test_the_account_key_is_nowhere() -> None:
    data = parse_init_data(WHOLE)
    assert "0123456789abcdef" not in repr(data) + data.model_dump_json()


def test_an_old_client_and_one_that_says_little() -> None:
    preferences = "<global_preferences><leave_apps_in_memory/></global_preferences>"
    data = parse_init_data(f"<app_init_data>{preferences}</app_init_data>")
    assert data.leave_apps_in_memory
    assert data == InitData(leave_apps_in_memory=True)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ncpus", "nan"),
        ("ncpus", "1e300"),
        ("hostid", "abc"),
        ("wu_cpu_time", "-1"),
        ("client_pid", "-1"),
        ("client_pid", "99999999999999999999"),
        ("project_dir", "/a\x01b"),
        ("wu_name", "x" * 10000),
    ],
)
def test_a_field_out_of_bounds_is_named_and_nothing_of_it_told(field: str, value: str) -> None:
    with pytest.raises(InitDataError, match=f"<{field}>") as told:
        parse_init_data(f"<app_init_data><{field}>{value}</{field}></app_init_data>")
    assert [error.field for error in told.value.errors] == [field]
    assert "9999" not in str(told.value) and "xxxx" not in str(told.value)


def test_preferences_out_of_bounds() -> None:
    text = WHOLE.replace("75.000000", "-75").replace("<userid>4", "<userid>5")
    with pytest.raises(InitDataError, match="<cpu_usage_limit>"):
        parse_init_data(text)


def test_a_torn_file() -> None:
    with pytest.raises(InitDataError, match="not whole"):
        parse_init_data(WHOLE[:-30])


def test_a_project_cannot_speak_for_the_client() -> None:
    forged = "</project_preferences><project_dir>/</project_dir>"
    text = WHOLE.replace("<hostid>666</hostid>", forged + "<hostid>666</hostid>")
    assert parse_init_data(text) == parse_init_data(WHOLE)


def test_entities_are_text() -> None:
    bomb = '<!DOCTYPE a [<!ENTITY b "bbbbbbbb"><!ENTITY c "&b;&b;">]>'
    secret = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>'
    for start in (bomb, secret):
        text = f"{start}<app_init_data><user_name>&c;&b;</user_name></app_init_data>"
        assert parse_init_data(text).user_name == "&c;&b;"


@given(st.text(), st.sampled_from(sorted(InitData.model_fields)))
def test_any_text_gives_data_or_the_error(text: str, field: str) -> None:
    try:
        data = parse_init_data(f"<app_init_data><{field}>{text}</{field}></app_init_data>")
    except InitDataError as error:
        assert len(str(error)) < 1000
    else:
        assert InitData.model_validate(data.model_dump()) == data


def test_files_that_cannot_be_it(tmp_path: Path) -> None:
    path = tmp_path / "init_data.xml"
    with pytest.raises(InitDataError, match="cannot be read"):
        read_init_data(path)
    path.write_bytes(b" " * (MOST_BYTES + 1))
    with pytest.raises(InitDataError, match="larger"):
        read_init_data(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(InitDataError, match="not whole"):
        read_init_data(path)
    path.unlink()
    path.write_bytes(b"<app_init_data><user_name>\xff\xfe</user_name></app_init_data>")
    assert len(read_init_data(path).user_name) == 2
