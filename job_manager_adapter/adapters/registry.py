"""Finds adapters by name: entry points of the group `copilot.adapters`, or registered by hand."""

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import cast

from copilot_agent.protocol.errors import CopilotError, ErrorCode
from job_manager_adapter.adapters.base import Adapter, AdapterFactory

GROUP = "copilot.adapters"


class Registry:
    def __init__(self, extra: Mapping[str, AdapterFactory] | None = None) -> None:
        """`extra` wins over entry points of the same name."""
        self._extra = dict(extra or {})

    def names(self) -> list[str]:
        return sorted({*self._extra, *(entry.name for entry in entry_points(group=GROUP))})

    def build(self, name: str, experiment: str, options: Mapping[str, object]) -> Adapter:
        """Raises CopilotError with `invalid_request` for an unknown name or a wrong option."""
        try:
            return self._factory(name, experiment)(experiment, options)
        except ValueError as error:
            raise CopilotError(
                f"experiments.{experiment}: {error}",
                code=ErrorCode.INVALID_REQUEST,
                remedy=f"correct the section [experiments.{experiment}] of the configuration",
            ) from error

    def _factory(self, name: str, experiment: str) -> AdapterFactory:
        if name in self._extra:
            return self._extra[name]
        for entry in entry_points(group=GROUP, name=name):
            return cast(AdapterFactory, entry.load())
        raise CopilotError(
            f"experiments.{experiment}: there is no adapter {name!r}",
            code=ErrorCode.INVALID_REQUEST,
            remedy=f"install the package that has it, or use one of: {', '.join(self.names())}",
        )
