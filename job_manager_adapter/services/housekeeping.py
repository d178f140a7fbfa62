"""What has to happen without anybody asking: leases that run out, retention, adapters."""


class Housekeeping:
    async def run(self) -> None:
        """Until cancelled."""
        raise NotImplementedError
