"""A stand-in agent that exercises the guest's end of the channels; reports by log messages.

It starts on `welcome`, whose manager URL names the test's server; on `resumed` it begins a new
epoch and tries again; on `stop` it dies, and the guest's init starts it anew.
"""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from copilot_agent.host_channel.hello import say_hello

if TYPE_CHECKING:
    from copilot_agent.host_channel.ports import Port
    from copilot_agent.protocol import guest

STARTED = time.monotonic()
EPOCH = Path("/run/test-epoch")
MEGABYTES = 10


def main() -> None:
    epoch = int(EPOCH.read_text()) + 1 if EPOCH.exists() else 1
    EPOCH.write_text(str(epoch))
    port = say_hello("0.0.test", epoch, restarted=epoch > 1)
    hello_seconds = time.monotonic() - STARTED

    import asyncio

    asyncio.run(Trial(port, epoch, hello_seconds).run())


class Trial:
    def __init__(self, port: "Port", epoch: int, hello_seconds: float) -> None:
        from copilot_agent.host_channel.ctrl import GuestChannel
        from copilot_agent.host_channel.net import NetChannel

        self.channel = GuestChannel(port, agent_version="0.0.test", epoch=epoch)
        self.net = NetChannel(epoch)
        self.facts = {"epoch": epoch, "hello_seconds": hello_seconds}
        self.target = ("", 0)

    async def run(self) -> None:
        await self.channel.start()
        await self.net.start()
        await self.tell(ready_seconds=time.monotonic() - STARTED, **self.facts)
        async for message in self.channel.messages():
            await self.hear(message)

    async def hear(self, message: "guest.HostMessage") -> None:
        from copilot_agent.protocol import guest

        if isinstance(message, guest.Welcome):
            host, _, port = message.manager.removeprefix("http://").rpartition(":")
            self.target = (host, int(port))
            await self.try_everything()
        elif isinstance(message, guest.Drain):
            await self.tell(echo=await self.echo(b"once more"))
        elif isinstance(message, guest.Resumed):
            epoch = int(self.facts["epoch"]) + 1
            EPOCH.write_text(str(epoch))
            await self.channel.renew(epoch)
            await self.net.reset(epoch)
            await self.tell(echo=await self.echo(b"after the pause"))
        elif isinstance(message, guest.Stop):
            os._exit(1)

    async def tell(self, **facts: Any) -> None:
        import json

        from copilot_agent.protocol import guest

        await self.channel.send(guest.Log(level="warning", message=json.dumps(facts)))

    async def try_everything(self) -> None:
        import asyncio

        begun = time.monotonic()
        await self.tell(
            first_echo=await self.echo(b"first"), first_echo_seconds=time.monotonic() - begun
        )
        begun = time.monotonic()
        for number in range(200):
            assert await self.echo(b"%d" % number) == str(number)
        await self.tell(sequential_seconds=time.monotonic() - begun)
        texts = [b"%d" % number * 50_000 for number in range(8)]
        answers = await asyncio.gather(*(self.echo(text) for text in texts))
        assert answers == [text.decode() for text in texts]
        await self.tell(parallel=8)
        await self.tell(**await self.download())
        await self.tell(**await self.upload())
        await self.tell(refused=await self.try_forbidden())

    async def echo(self, data: bytes) -> str:
        import asyncio

        sock = await self.net.dial(*self.target)
        reader, writer = await asyncio.open_connection(sock=sock)
        writer.write(b"echo\n" + data)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        return answer.decode()

    async def download(self) -> dict[str, Any]:
        import asyncio
        import hashlib

        loop = asyncio.get_running_loop()
        sock = await self.net.dial(*self.target)
        begun, total, digest = time.monotonic(), 0, hashlib.sha256()
        await loop.sock_sendall(sock, b"give %d\n" % (MEGABYTES * 1_000_000))
        while data := await loop.sock_recv(sock, 262144):
            total += len(data)
            digest.update(data)
        sock.close()
        seconds = time.monotonic() - begun
        return {"in_bytes": total, "in_seconds": seconds, "in_sha256": digest.hexdigest()}

    async def upload(self) -> dict[str, Any]:
        import asyncio
        import hashlib
        import socket

        loop = asyncio.get_running_loop()
        block, digest = os.urandom(1_000_000), hashlib.sha256()
        sock = await self.net.dial(*self.target)
        begun = time.monotonic()
        await loop.sock_sendall(sock, b"take\n")
        for _ in range(MEGABYTES):
            await loop.sock_sendall(sock, block)
            digest.update(block)
        sock.shutdown(socket.SHUT_WR)
        answer = await loop.sock_recv(sock, 100)
        sock.close()
        same = answer.decode() == digest.hexdigest()
        return {"out_same": same, "out_seconds": time.monotonic() - begun}

    async def try_forbidden(self) -> dict[str, Any]:
        from copilot_agent.host_channel.errors import EgressRefusedError

        host, port = self.target
        reasons = {}
        for target in [
            (host, 22),
            (host, port ^ 1),
            ("localhost", port),
            ("::1", port),
            ("10.0.2.2", 80),
            ("192.168.1.1", 80),
            ("169.254.169.254", 80),
            ("example.org", 443),
        ]:
            try:
                (await self.net.dial(*target)).close()
            except EgressRefusedError as error:
                reasons[f"{target[0]} {'near' if target[1] == port ^ 1 else ''}"] = error.reason
        return reasons


if __name__ == "__main__":
    main()
