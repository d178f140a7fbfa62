"""Requirement classes: numbers for what jobs ask for."""

from collections.abc import Iterable
from typing import Any

from copilot_agent.protocol.job import Requirements
from job_manager_adapter.core.matching import RequirementClass
from job_manager_adapter.store.records import NewJob

_GET = "SELECT experiment, requirements FROM classes WHERE id = $1"
# The update changes nothing; it makes the row come back when another manager was quicker.
_INTERN = """
INSERT INTO classes (experiment, requirements) VALUES ($1, $2)
ON CONFLICT (experiment, requirements) DO UPDATE SET experiment = excluded.experiment
RETURNING id"""
_FIND = "SELECT id FROM classes WHERE experiment = $1 AND requirements = $2"


class Classes:
    """Read through; classes are never changed."""

    def __init__(self) -> None:
        self._by_number: dict[int, RequirementClass] = {}
        self._by_key: dict[tuple[str, Requirements], RequirementClass] = {}

    async def get(self, connection: Any, number: int) -> RequirementClass:
        known = self._by_number.get(number)
        if known is None:
            experiment, text = await connection.fetchrow(_GET, number)
            known = RequirementClass(number, experiment, Requirements.model_validate_json(text))
            self._by_number[number] = known
        return known

    async def intern(
        self, connection: Any, jobs: Iterable[NewJob]
    ) -> dict[tuple[str, Requirements], RequirementClass]:
        """A class for each (experiment, requirements).

        Only committed ones are kept, so that a rollback cannot leave a wrong one.
        """
        keys = dict.fromkeys((job.experiment, job.requirements) for job in jobs)
        return {key: self._by_key.get(key) or await self._intern(connection, *key) for key in keys}

    async def _intern(
        self, connection: Any, experiment: str, requirements: Requirements
    ) -> RequirementClass:
        text = requirements.model_dump_json()
        number = await connection.fetchval(_FIND, experiment, text)
        if number is not None:
            klass = RequirementClass(number, experiment, requirements)
            self._by_key[experiment, requirements] = self._by_number[number] = klass
            return klass
        number = await connection.fetchval(_INTERN, experiment, text)
        return RequirementClass(number, experiment, requirements)
