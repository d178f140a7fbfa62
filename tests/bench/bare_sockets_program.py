"""The least that a server of WebSockets can do: `tests.bench.bare_sockets` starts it.

A message is answered by a short one; `wake` is answered on every connection.
"""

import asyncio
import signal

from aiohttp import WSMsgType, web

from job_manager_adapter.descriptors import raise_limit
from tests.bench.bare_sockets import JOB, WAKE


async def serve() -> None:
    sockets: set[web.WebSocketResponse] = set()

    async def socket(request: web.Request) -> web.WebSocketResponse:
        made = web.WebSocketResponse()
        await made.prepare(request)
        sockets.add(made)
        async for message in made:
            if message.type is not WSMsgType.TEXT:
                break
            if message.data == WAKE:
                for each in sockets:
                    await each.send_str(JOB)
            else:
                await made.send_str("ok")
        sockets.discard(made)
        return made

    application = web.Application()
    application.router.add_get("/pilot/v1/socket", socket)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()


if __name__ == "__main__":
    raise_limit()
    asyncio.run(serve())
