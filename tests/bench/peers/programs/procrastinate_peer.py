"""procrastinate on PostgreSQL: `schema`, `work`, or `submit JOBS`."""

import asyncio
import os
import sys

from pace import drive
from procrastinate import App, PsycopgConnector

CONCURRENCY = 16
app = App(connector=PsycopgConnector(conninfo=os.environ["PEER_SERVER"], max_size=20))


@app.task(name="noop")
async def noop() -> None:
    """The job."""


async def submit(count: int) -> None:
    await noop.batch_defer_async(*({} for _ in range(count)))


async def ended() -> int:
    query = "SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'"
    return int((await app.connector.execute_query_one_async(query))["count"])


async def main() -> None:
    async with app.open_async():
        match sys.argv[1:]:
            case ["schema"]:
                await app.schema_manager.apply_schema_async()
            case ["work"]:
                await app.run_worker_async(concurrency=CONCURRENCY)
            case ["submit", jobs]:
                await drive(int(jobs), submit, ended)


if __name__ == "__main__":
    asyncio.run(main())
