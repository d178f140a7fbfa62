"""Typed asynchronous client of the manager's API.

async with Client("http://127.0.0.1:8470", token) as client:
    reply = await client.jobs.submit([JobSpec(experiment="demo", command=("/bin/true",))])
    async for job in client.jobs.wait(reply.jobs):
        print(job.id, job.state)
"""

from job_manager_adapter.client.client import Client
from job_manager_adapter.client.http import ApiError, UnreachableError
from job_manager_adapter.client.receipts import ReceiptError, verify_receipt

__all__ = ["ApiError", "Client", "ReceiptError", "UnreachableError", "verify_receipt"]
