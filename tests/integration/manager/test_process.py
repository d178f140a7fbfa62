"""`copilot-manager` as a process: serving, dying, coming back, being cared for."""

import asyncio
import contextlib
import json
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from copilot_agent.protocol.job import JobSpec, JobState, Phase
from job_manager_adapter.client import Client
from tests.integration.manager.pilot import FakePilot, held, success

COMMAND = [sys.executable, "-m", "job_manager_adapter.cli.manager"]
CONFIG = """
data_dir = "{data}"
[server]
port = 0
[policy]
heartbeat_seconds = 1.0
lease_seconds = 20.0
[limits]
free_space_mib = 1
[experiments.demo]
"""
SPEC = JobSpec(experiment="demo", command=("/bin/true",))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "manager.toml"
    path.write_text(CONFIG.format(data=tmp_path / "data"))
    return path


async def run(config: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "--config", str(config), *arguments, stdout=-1, stderr=-1
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


class Serving:
    """A manager's process."""

    def __init__(self, process: asyncio.subprocess.Process, data: Path, url: str) -> None:
        self.process, self.data, self.url = process, data, url

    @property
    def token(self) -> str:
        return (self.data / "operator.token").read_text().strip()

    def memory_mib(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        [line] = [line for line in status.splitlines() if line.startswith("VmRSS")]
        return int(line.split()[1]) / 1024


@contextlib.asynccontextmanager
async def serving(config: Path) -> AsyncIterator[Serving]:
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "--config", str(config), "serve", stdout=-1
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            line = (await process.stdout.readline()).decode()
        assert line.startswith("serving on "), line
        yield Serving(process, config.parent / "data", line.removeprefix("serving on ").strip())
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def stop(server: Serving, number: int) -> int:
    server.process.send_signal(number)
    async with asyncio.timeout(5):
        return await server.process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_starts_writes_its_files_and_stops(config: Path, number: int) -> None:
    async with serving(config) as server:
        data = server.data
        assert (data / "manager.url").read_text().strip() == server.url
        for private in [data, data / "operator.token", *data.glob("keys/*")]:
            assert private.stat().st_mode & 0o077 == 0, private
        async with aiohttp.ClientSession() as http, http.get(f"{server.url}/readyz") as reply:
            assert reply.status == 200
        assert server.memory_mib() < 90
        assert await stop(server, number) == 0
        assert not (data / "manager.url").exists()


async def test_a_taken_port_and_a_wrong_certificate_are_one_clear_line(
    config: Path, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        code, _, err = await run(config, "serve", "--port", port)
    assert (code, "--port" in err, "Traceback" in err) == (1, True, False)
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    code, _, err = await run(config, "serve", "--tls-cert", str(junk), "--tls-key", str(junk))
    assert (code, "PEM" in err, "Traceback" in err) == (1, True, False)


async def test_a_secret_that_is_not_there_is_one_clear_line(config: Path, tmp_path: Path) -> None:
    missing = tmp_path / "xmpp.secret"
    with config.open("a") as file:
        file.write('[xmpp]\ncomponent = "m.test"\ndomain = "p.test"\nserver = "x.test:5222"\n')
        file.write(f'secret_file = "{missing}"\n')
    code, _, err = await run(config, "serve")
    assert code == 1
    assert f"error: xmpp.secret_file: {missing} cannot be read" in err
    assert "Traceback" not in err


async def test_it_stops_at_once_whatever_hangs_on_it(config: Path) -> None:
    _, out, _ = await run(
        config, "enrolment", "create", "--new", "--count", "2", "--output", "quiet"
    )
    secrets = out.split()
    async with serving(config) as server, aiohttp.ClientSession(server.url) as http:
        headers = {"Authorization": f"Bearer {server.token}"}
        listener = await http.get("/api/v1/events", headers=headers)
        talker, poller = FakePilot(http), FakePilot(http)
        await talker.enrol(secrets[0])
        await poller.enrol(secrets[1])
        await poller.poll()
        waiting = asyncio.create_task(poller.poll(wait=25))

        async def half() -> AsyncIterator[bytes]:
            yield b"half"
            await asyncio.Event().wait()

        upload = headers | {"Upload-Offset": "0", "Upload-Length": "100"}
        url = f"/api/v1/files/{'0' * 64}"
        hanging = asyncio.create_task(http.put(url, data=half(), headers=upload))
        async with talker.connect() as web_socket:
            await talker.say(web_socket)
            await talker.hear(web_socket)
            assert await stop(server, signal.SIGTERM) == 0
        listener.close()
        hanging.cancel()
        await asyncio.gather(waiting, hanging, return_exceptions=True)


async def test_tls(config: Path, tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    with config.open("a") as file:
        file.write(f'[server]\nport = 0\ntls_cert = "{certificate}"\ntls_key = "{key}"\n')
    config.write_text(config.read_text().replace("[server]\nport = 0\n", "", 1))
    trust = ssl.create_default_context(cafile=str(certificate))
    async with serving(config) as server, aiohttp.ClientSession() as http:
        assert server.url.startswith("https://")
        async with http.get(f"{server.url}/livez", ssl=trust) as reply:
            assert reply.status == 200
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await http.get(f"{server.url}/livez")


def self_signed(directory: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "manager")])
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(address, critical=False)
        .sign(private, hashes.SHA256())
    )
    paths = directory / "cert.pem", directory / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


async def test_kill_in_the_middle_of_a_job_loses_nothing(config: Path) -> None:
    _, out, _ = await run(config, "enrolment", "create", "--new", "--output", "quiet")
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(serving(config))
        client = await stack.enter_async_context(Client(first.url, first.token))
        http = await stack.enter_async_context(aiohttp.ClientSession(first.url))
        pilot = FakePilot(http)
        await pilot.enrol(out.strip())
        await pilot.poll()
        submitted = await client.jobs.submit([SPEC, SPEC])
        answer = await pilot.poll()
        while answer is None or len(answer.offers) < 2:
            answer = await pilot.poll()
        offers = answer.offers
        await pilot.poll(wait=0, holding=held(offers[0]) + held(offers[1]))
        await stop(first, signal.SIGKILL)

        second = await stack.enter_async_context(serving(config))
        pilot.http = await stack.enter_async_context(aiohttp.ClientSession(second.url))
        pilot.session = None
        held_now = tuple(item for offer in offers for item in held(offer, Phase.RUNNING))
        answer = await pilot.poll(holding=held_now)
        assert answer is not None
        links = await fresh_links(pilot, second.url, offers)
        reports = []
        for offer, link in zip(offers, links, strict=True):
            relinked = offer.model_copy(update={"outputs": link.outputs})
            outputs = [
                await pilot.upload(relinked, name, b"said") for name in ("stdout.log", "stderr.log")
            ]
            reports.append(success(offer, tuple(outputs)))
        judged: set[str] = set()  # each is committed on its own
        while judged != set(submitted.jobs):
            answer = await pilot.poll(holding=held_now, reports=tuple(reports))
            judged |= {verdict.job for verdict in answer.verdicts} if answer else set()
        client = await stack.enter_async_context(Client(second.url, second.token))
        for job in submitted.jobs:
            view = await client.jobs.show(job)
            assert view.state is JobState.SUCCEEDED
            assert len(view.attempts) == 1


async def fresh_links(pilot: FakePilot, url: str, offers: tuple) -> list:  # type: ignore[type-arg]
    """The new manager has another port here, so the offers' links are stale."""
    from copilot_agent.protocol.frames import LinkRequest

    asked = tuple(LinkRequest(job=offer.job, attempt=offer.attempt) for offer in offers)
    everything = tuple(item for offer in offers for item in held(offer))
    answer = await pilot.poll(holding=everything, link_requests=asked)
    while answer is None or not answer.links:
        answer = await pilot.poll(holding=everything)
    found = {links.job: links for links in answer.links}
    assert all(link.url.startswith(url) for links in found.values() for link in links.outputs)
    return [found[offer.job] for offer in offers]


async def test_a_second_one_on_the_same_data_is_refused(config: Path) -> None:
    async with serving(config):
        code, _, err = await run(config, "serve")
        assert code == 1
        assert "another manager" in err


async def test_secrets_and_tokens_while_it_serves(config: Path, tmp_path: Path) -> None:
    async with serving(config) as server, aiohttp.ClientSession(server.url) as http:
        folder = tmp_path / "secrets"
        code, out, _ = await run(
            config, "enrolment", "create", "--count", "2", "--expires", "7d", "--label", "lab",
            "--directory", str(folder), "--output", "json",
        )  # fmt: skip
        assert code == 0
        assert [view["secret"] for view in json.loads(out)] == [None, None]
        secrets = sorted(folder.iterdir())
        assert len(secrets) == 2
        assert all(path.stat().st_mode & 0o177 == 0 for path in secrets)
        await FakePilot(http).enrol(secrets[0].read_text().strip())

        arguments = ("--role", "experiment", "--experiment", "demo", "--output", "json")
        code, out, _ = await run(config, "token", "create", *arguments)
        [token] = json.loads(out)
        headers = {"Authorization": f"Bearer {token['token']}"}
        async with http.get("/api/v1/whoami", headers=headers) as reply:
            assert (await reply.json())["experiment"] == "demo"
        code, out, _ = await run(config, "token", "list")
        assert token["id"] in out
        assert token["token"] not in out
        code, _, _ = await run(config, "token", "revoke", token["id"])
        assert code == 0
        code, out, _ = await run(config, "enrolment", "list", "--output", "json")
        assert sorted(len(view["hosts"]) for view in json.loads(out)) == [0, 1]


async def test_wrong_arguments_say_what_would_be_right(config: Path) -> None:
    for arguments, hint in [
        (("token", "create", "--new", "--role", "experiment", "--experiment", "nobody"), "nobody"),
        (("token", "revoke", "t-00000000000000000000"), "t-0000"),
        (("enrolment", "create", "--expires", "soon"), "12h"),
        (("enrolment", "create", "--count", "0"), "10000"),
        (("serve", "--listen", "0.0.0.0"), "tls_cert"),  # noqa: S104 - is refused
    ]:
        code, _, err = await run(config, *arguments)
        assert code in (1, 2)
        assert hint in err
        assert "Traceback" not in err


async def test_a_backup_can_be_started_from(config: Path, tmp_path: Path) -> None:
    async with serving(config) as server:
        async with Client(server.url, server.token) as client:
            submitted = await client.jobs.submit([SPEC])
        code, out, err = await run(config, "backup", str(tmp_path / "backup"), "--files")
        assert code == 0, err
        token = server.token
    [copy] = (tmp_path / "backup").iterdir()
    assert "database" in out
    other = tmp_path / "other.toml"
    other.write_text(CONFIG.format(data=copy))
    assert (await run(other, "doctor"))[0] == 0
    async with serving(other) as server, Client(server.url, token) as client:
        assert (await client.jobs.show(submitted.jobs[0])).state is JobState.WAITING


async def test_doctor_and_config(config: Path, tmp_path: Path) -> None:
    code, out, _ = await run(config, "doctor")
    assert (code, "disk" in out, "clock" in out) == (0, True, True)
    async with serving(config):
        pass
    (tmp_path / "data" / "keys" / "access.key").chmod(0o644)
    code, out, _ = await run(config, "doctor")
    assert code == 1
    assert "chmod 600" in out
    code, out, _ = await run(config, "config", "show", "--origin")
    assert code == 0
    assert f"# {config}" in out
    written = tmp_path / "written.toml"
    assert (await run(config, "config", "init", str(written)))[0] == 0
    assert (await run(written, "config", "check"))[0] == 0
