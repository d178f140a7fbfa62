"""Finding and driving a port; the boot path stays small."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from copilot_agent.host_channel import ports
from copilot_agent.host_channel.hello import hello_line
from copilot_agent.host_channel.ports import Port, PortNotFoundError, find_port
from copilot_agent.protocol import guest


def test_a_port_is_found_by_its_name(tmp_path: Path) -> None:
    for device, name in [("vport0p1", guest.CTRL_PORT), ("vport0p2", guest.NET_PORT)]:
        (tmp_path / device).mkdir()
        (tmp_path / device / "name").write_text(name + "\n")
    assert find_port(guest.NET_PORT, tmp_path) == Path("/dev/vport0p2")


def test_a_missing_port_is_said_by_name(tmp_path: Path) -> None:
    with pytest.raises(PortNotFoundError, match=guest.CTRL_PORT):
        find_port(guest.CTRL_PORT, tmp_path)


def test_the_boot_path_knows_the_same_names_as_the_contract() -> None:
    assert (ports.CTRL_PORT, ports.NET_PORT) == (guest.CTRL_PORT, guest.NET_PORT)


def test_the_boot_paths_hello_fits_the_contract() -> None:
    line = hello_line("0.1.0+x", 3, restarted=True)
    message = guest.GUEST_MESSAGE.validate_json(line)
    assert isinstance(message, guest.Hello)
    assert message.restarted
    assert message.model_dump(exclude={"boot_seconds"}) == {
        key: value for key, value in json.loads(line).items() if key != "boot_seconds"
    }


def test_saying_hello_imports_nothing_heavy() -> None:
    program = "import sys, copilot_agent.host_channel.hello; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    loaded = set(done.stdout.decode().split())
    assert not loaded & {"asyncio", "pydantic", "h2", "aiohttp", "ssl", "typing", "logging"}


def test_reading_tells_nothing_yet_from_nobody_there() -> None:
    near, far = socket.socketpair()
    port = Port.over(near)
    assert port.read() is None
    far.send(b"x" * 10_000)
    assert port.read() == b"x" * 10_000
    assert port.present()
    far.close()
    assert port.read() == b""
    assert not port.present()
    port.close()


def test_writing_takes_what_fits() -> None:
    near, far = socket.socketpair()
    port = Port.over(near)
    data = memoryview(bytes(10_000_000))
    taken = port.write(data)
    assert 0 < taken < len(data)
    assert port.write(data) == 0
    far.recv(1_000_000)
    far.close()
    port.close()
