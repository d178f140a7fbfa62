"""Stops a process inside a function: for tests, found by PYTHONPATH, never shipped.

COPILOT_FAULT_POINTS is JSON: name → [module, class, method, "before" | "after"]. A point fires
once, when the file NAME.armed is in COPILOT_FAULT_DIRECTORY and its text is in the call's
arguments: the file is renamed to NAME.reached and the process stops itself.
"""

import asyncio
import functools
import importlib.abc
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

DIRECTORY = Path(os.environ.get("COPILOT_FAULT_DIRECTORY", "/nonexistent"))
POINTS: dict[str, tuple[str, str, str, str]] = json.loads(
    os.environ.get("COPILOT_FAULT_POINTS", "{}")
)
MODULES = {point[0] for point in POINTS.values()}


def fire(name: str, arguments: object) -> None:
    armed = DIRECTORY / f"{name}.armed"
    try:
        if armed.read_text() not in repr(arguments):
            return
        armed.rename(DIRECTORY / f"{name}.reached")
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGSTOP)


def wrapped(name: str, method: Callable[..., Any], when: str) -> Callable[..., Any]:
    def at(moment: str, arguments: object) -> None:
        if when == moment:
            fire(name, arguments)

    @functools.wraps(method)
    def plain(*arguments: object, **options: object) -> Any:
        at("before", (arguments[1:], options))
        result = method(*arguments, **options)
        at("after", (arguments[1:], options))
        return result

    @functools.wraps(method)
    async def awaited(*arguments: object, **options: object) -> Any:
        at("before", (arguments[1:], options))
        result = await method(*arguments, **options)
        at("after", (arguments[1:], options))
        return result

    return awaited if asyncio.iscoroutinefunction(method) else plain


def patch(module: ModuleType) -> None:
    for name, (where, owner, method, when) in POINTS.items():
        if where == module.__name__:
            target = getattr(module, owner)
            setattr(target, method, wrapped(name, getattr(target, method), when))


class Loader(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        patch(module)


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        for finder in sys.meta_path if name in MODULES else ():
            if finder is not self and (spec := finder.find_spec(name, path, target)):
                spec.loader = Loader(spec.loader) if spec.loader else None
                return spec
        return None


if POINTS:
    sys.meta_path.insert(0, Finder())
