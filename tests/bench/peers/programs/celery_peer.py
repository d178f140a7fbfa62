"""Celery on Redis: `celery -A celery_peer worker`, or `submit JOBS`."""

import asyncio
import os
import sys

from celery import Celery
from pace import drive
from redis import Redis

app = Celery("celery_peer", broker=os.environ["PEER_SERVER"])
app.conf.update(task_acks_late=True, task_ignore_result=True, worker_prefetch_multiplier=16)


@app.task(name="noop")
def noop() -> None:
    """The job."""


def main(jobs: int) -> None:
    redis, submitted = Redis.from_url(os.environ["PEER_SERVER"]), 0

    async def ended() -> int:
        waiting, unacknowledged = redis.llen("celery"), redis.hlen("unacked")
        return submitted - int(waiting) - int(unacknowledged)

    with app.producer_pool.acquire(block=True) as producer:

        async def submit(count: int) -> None:
            nonlocal submitted
            for _ in range(count):
                noop.apply_async(producer=producer)
            submitted += count

        asyncio.run(drive(jobs, submit, ended))


if __name__ == "__main__":
    main(int(sys.argv[2]))
