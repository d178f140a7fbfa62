"""A small scheduler in one JSON file and its adapter, as somebody outside would write it."""

from tests.harness.reference_adapter.adapter import ReferenceAdapter
from tests.harness.reference_adapter.scheduler import FileScheduler

__all__ = ["FileScheduler", "ReferenceAdapter"]
