"""The same files in the slot as Debian's official library writes and reads."""

from pathlib import Path
from typing import Any

import pytest

from tests.harness.programs import eventually
from tests.integration.boinc_api.conftest import Base, Both, ClientSide, Task
from vm_launcher.boinc.errors import SlotLockedError
from vm_launcher.boinc.init_data import read_init_data
from vm_launcher.boinc.shared_memory import (
    MOST_TEXT_BYTES,
    Channel,
)
from vm_launcher.boinc.slot import Slot


async def ending(task: Task, *order: Any) -> tuple[int, dict[str, str]]:
    assert task.files() == {"boinc_lockfile": ""}
    task.tell(*order)
    return await task.process.wait(), task.files()


@pytest.mark.parametrize(
    ("code", "message", "notice", "text"),
    [
        (0, "", False, "0\n"),
        (207, "there was no work", False, "207\nthere was no work\n\n"),
        (206, "install qemu-system-x86", True, "206\ninstall qemu-system-x86\nnotice\n"),
    ],
)
async def test_the_end(both: Both, code: int, message: str, notice: bool, text: str) -> None:
    async def scenario(task: Task) -> Any:
        return await ending(task, "finish", code, message, notice)

    assert await both.same(scenario) == (code, {"boinc_finish_called": text})


@pytest.mark.parametrize("notice", [False, True])
async def test_a_pause_of_the_task(both: Both, notice: bool) -> None:
    async def scenario(task: Task) -> Any:
        return await ending(task, "postpone", 600, "waiting for work", notice)

    text = "600\nwaiting for work\n" + ("notice\n" if notice else "")
    assert await both.same(scenario) == (0, {"boinc_temporary_exit": text})


async def test_the_library_waits_while_we_are_in_the_slot(both: Both, base: Base) -> None:
    task = await both.task("ours")
    assert base.call("try_lock", str(task.client.slot / "boinc_lockfile")) != 0
    await both.start("official", task.client.slot)
    log = task.client.slot / "stderr.txt"
    await eventually(lambda: log.exists() and "acquire lockfile" in log.read_text(), 10, "its word")


async def test_we_wait_while_the_library_is_in_the_slot(both: Both) -> None:
    task = await both.task("official")
    slot = Slot(task.client.slot)
    with pytest.raises(SlotLockedError):
        await slot.lock(0.3)
    task.tell("postpone", 1, "bye", False)
    await slot.lock(10)
    await task.process.wait()
    assert (slot.directory / "boinc_lockfile").exists()
    slot.unlock()


def test_either_sides_channels(tmp_path: Path, base: Base) -> None:
    ours = ClientSide(tmp_path / "slot", 1).memory
    theirs = str(tmp_path / "slot/boinc_mmap_file")
    for channel in Channel:
        text = f"{channel}" * MOST_TEXT_BYTES
        assert ours.send(channel, text)
        assert not base.call("send", theirs, channel, "too early")
        assert base.call("receive", theirs, channel) == text
        assert base.call("receive", theirs, channel) is None
        assert base.call("send", theirs, channel, text + "cut off")
        assert not ours.send(channel, "too early")
        assert ours.receive(channel) == text
        assert not ours.unread(channel)


def test_init_data_as_the_library_writes_it(tmp_path: Path, base: Base) -> None:
    source, target = tmp_path / "in.xml", tmp_path / "out.xml"
    source.write_text(
        "<app_init_data>\n<userid>4</userid>\n<hostid>17</hostid>\n<teamid>2</teamid>\n"
        "<project_preferences>\n<hostid>666</hostid> raw & <b>\n</project_preferences>\n"
        "<user_name>J&#233;r &lt;b&gt; &amp; co</user_name>\n<team_name>CERN</team_name>\n"
        "<authenticator>0123456789abcdef</authenticator>\n<wu_name>copilot_e-1</wu_name>\n"
        "<project_dir>/d/projects/p</project_dir>\n<shm_key>-1</shm_key>\n<slot>3</slot>\n"
        "<client_pid>4711</client_pid>\n<wu_cpu_time>12.5</wu_cpu_time>\n<ncpus>2</ncpus>\n"
        "<host_info><p_ncpus>8</p_ncpus><m_nbytes>16e9</m_nbytes></host_info>\n"
        "<global_preferences><leave_apps_in_memory/><cpu_usage_limit>75</cpu_usage_limit>"
        "<ram_max_used_busy_pct>40</ram_max_used_busy_pct><disk_interval>60</disk_interval>"
        "<max_bytes_sec_up>1000</max_bytes_sec_up><daily_xfer_limit_mb>500</daily_xfer_limit_mb>"
        "<daily_xfer_period_days>30</daily_xfer_period_days></global_preferences>\n"
        "</app_init_data>\n"
    )
    base.call("rewrite_init_data", str(source), str(target))
    ours = read_init_data(target)
    assert ours.model_dump(exclude={"ram_max_used_idle_pct"}) == read_init_data(source).model_dump(
        exclude={"ram_max_used_idle_pct"}
    )
    assert ours.user_name == "Jér <b> & co"
    assert (ours.userid, ours.hostid, ours.p_ncpus, ours.client_pid) == (4, 17, 8, 4711)
    assert (ours.cpu_usage_limit, ours.ram_max_used_busy_frac) == (75, 0.4)
    assert ours.ram_max_used_idle_frac == 0.9  # the library's default
    assert ours.leave_apps_in_memory


def test_names_of_files(tmp_path: Path, base: Base) -> None:
    slot = ClientSide(tmp_path / "slot", 1).slot
    (slot / "soft").write_text("<soft_link>../slot/target</soft_link>\n")
    (slot / "copied").write_text("not a link")
    (slot / "real").symlink_to("target")
    (slot / "target").touch()
    for name in ("soft", "copied", "real", "none"):
        found = slot / base.call("resolve", str(slot), name)
        assert Slot(slot).resolve(name) == found.resolve()
