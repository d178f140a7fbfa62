"""The same words between client and task as Debian's official library uses."""

import re
from typing import Any

import pytest

from tests.integration.boinc_api.conftest import Both, Task
from vm_launcher.boinc.shared_memory import Channel


async def test_orders(both: Both) -> None:
    async def scenario(task: Task) -> list[dict[str, Any]]:
        seen = [await task.call("seen")]
        for order, sight in (
            ("suspend", {"suspended": True}),
            ("resume", {"suspended": False}),
            ("reread_app_info", {"reread": True}),
            ("quit", {"quit": True}),
            ("abort", {"abort": True}),
        ):
            await task.client.order(order)
            seen.append(await task.sees(**sight))
        return seen

    first, *_, last = await both.same(scenario)
    assert first["earlier_cpu"] == 100.5 and not first["standalone"]
    assert not any((first["suspended"], first["quit"], first["abort"], first["reread"]))
    assert last["quit"] and last["abort"] and last["reread"] and not last["suspended"]


async def test_heartbeats(both: Both) -> None:
    async def scenario(task: Task) -> list[dict[str, Any]]:
        await task.client.beat()
        quiet = await task.sees(memory_limit=3e9)
        await task.client.beat("<suspend_network/>\n")
        cut = await task.sees(network_suspended=True)
        await task.client.beat()
        return [quiet, cut, await task.sees(network_suspended=False)]

    quiet, cut, again = await both.same(scenario)
    assert quiet == again == cut | {"network_suspended": False}


async def test_the_network_switch_as_the_client_really_says_it(both: Both) -> None:
    """The official library (7.20.5) listens for a word that its client does not say."""

    async def scenario(task: Task) -> bool:
        await task.client.beat("<network_suspended/>\n")
        return bool((await task.sees(memory_limit=3e9))["network_suspended"])

    assert await scenario(await both.task("ours"))
    assert not await scenario(await both.task("official"))


@pytest.mark.parametrize(
    ("cpu", "checkpoint", "fraction", "pid"),
    [(1.25, 1.0, 0.3, 0), (1e7 / 3, 123456.7, 1.0, 4711), (0.0, 0.0, 1e-9, 1)],
)
async def test_a_status(
    both: Both, cpu: float, checkpoint: float, fraction: float, pid: int
) -> None:
    async def scenario(task: Task) -> list[Any]:
        report = ("report", cpu, checkpoint, fraction, pid)
        answers = [await task.call(*report), await task.call(*report)]
        text = await task.client.message(Channel.APP_STATUS)
        return [*answers, text, await task.call(*report)]

    first, unread, text, again = await both.same(scenario)
    assert (first, unread, again) == (True, False, True)
    assert f"<current_cpu_time>{cpu:e}</current_cpu_time>" in text


async def test_a_status_that_asks_for_the_network(both: Both) -> None:
    """Of the library's own reports, only the CPU times differ."""

    async def scenario(task: Task) -> set[str]:
        await task.call("progress", 0.25)
        task.client.memory.receive(Channel.APP_STATUS)
        await task.call("progress", 0.25)
        while "want_network" not in (text := await task.client.message(Channel.APP_STATUS)):
            await task.call("progress", 0.25)
        return set(re.sub(r"cpu_time>[0-9.e+-]+<", "cpu_time><", text).split())

    tags = await both.same(scenario, send_status=True)
    assert {"<fraction_done>2.500000e-01</fraction_done>", "<want_network>1</want_network>"} < tags


async def test_the_page(both: Both) -> None:
    async def scenario(task: Task) -> str:
        await task.call("offer_page", "http://127.0.0.1:8080/")
        return await task.client.message(Channel.GRAPHICS_REPLY)

    assert "127.0.0.1:8080" in await both.same(scenario)


async def test_trickles_up(both: Both) -> None:
    async def scenario(task: Task) -> list[str]:
        taken = []
        for seconds in (10, 20):
            await task.call("trickle_up", "copilot_runtime", f"<runtime>{seconds}</runtime>\n")
            taken.append(await task.client.message(Channel.TRICKLE_UP))
            file = task.client.slot / "trickle_up.xml"
            taken.append(file.read_text())
            file.unlink()
        return taken

    flag, file, *_ = await both.same(scenario)
    assert flag == "<have_new_trickle_up/>\n"
    assert file == "<variety>copilot_runtime</variety>\n<runtime>10</runtime>\n"


async def test_trickles_down(both: Both) -> None:
    async def scenario(task: Task) -> list[Any]:
        await task.client.trickle_down("trickle_down_1785542400", "first")
        one = await task.sees(trickles_down=["first"])
        await task.client.trickle_down("trickle_down_1785542401", "second")
        return [one, await task.sees(trickles_down=["first", "second"]), task.files()]

    *_, files = await both.same(scenario)
    assert files == {"boinc_lockfile": ""}
