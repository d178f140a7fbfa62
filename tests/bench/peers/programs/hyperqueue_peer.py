"""HyperQueue's server and worker on this computer: `submit JOBS`. Each job is a real process."""

import asyncio
import sys
from pathlib import Path

from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig
from pace import drive

CORES = 4


def main(jobs: int) -> None:
    with LocalCluster(str(Path.cwd()), WorkerConfig(cores=CORES)) as cluster:
        client, due, done = cluster.client(), [], 0

        async def submit(count: int) -> None:
            job = Job()
            for _ in range(count):
                job.program(["/bin/true"], stdout=None, stderr=None)
            due.append((await asyncio.to_thread(client.submit, job), count))

        async def ended() -> int:
            nonlocal done
            job, count = due.pop(0)
            await asyncio.to_thread(client.wait_for_jobs, [job])
            done += count
            return done

        asyncio.run(drive(jobs, submit, ended))


if __name__ == "__main__":
    main(int(sys.argv[2]))
