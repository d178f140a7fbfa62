"""taskiq on a Redis stream: `taskiq worker taskiq_peer:broker`, or `submit JOBS`."""

import asyncio
import os
import sys

from pace import drive
from redis.asyncio import Redis
from taskiq_redis import RedisStreamBroker

broker = RedisStreamBroker(os.environ["PEER_SERVER"], consumer_id="0")


@broker.task(task_name="noop")
async def noop() -> None:
    """The job."""


async def submit(count: int) -> None:
    await asyncio.gather(*(noop.kiq() for _ in range(count)))


async def main(jobs: int) -> None:
    await broker.startup()
    redis = Redis.from_url(os.environ["PEER_SERVER"])

    async def ended() -> int:
        (group,) = await redis.xinfo_groups("taskiq")
        return int(group["entries-read"] or 0) - int(group["pending"])

    await drive(jobs, submit, ended)
    await redis.aclose()
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[2])))
