"""Stops a process inside a function: for tests, found by PYTHONPATH, never shipped.

COPILOT_FAULT_POINTS is JSON: name → [module, class, method, "before" | "after"]. A point fires
once, when the file NAME.armed is in COPILOT_FAULT_DIRECTORY and its text is in the call's
arguments: the file is renamed to NAME.reached and the process stops itself.
"""

import asyncio
import functools
import importlib.abc
import importlib.machinery
import json
import os
import signal
import sys
from pathlib import Path

DIRECTORY = Path(os.environ.get("COPILOT_FAULT_DIRECTORY", "/nonexistent"))
POINTS = json.loads(os.environ.get("COPILOT_FAULT_POINTS", "{}"))


def fire(name, arguments):
    armed = DIRECTORY / f"{name}.armed"
    try:
        if armed.read_text() not in repr(arguments):
            return
        armed.rename(DIRECTORY / f"{name}.reached")
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGSTOP)


def wrapped(name, method, when):
    @functools.wraps(method)
    def plain(*arguments, **options):
        if when == "before":
            fire(name, (arguments[1:], options))
        result = method(*arguments, **options)
        if when == "after":
            fire(name, (arguments[1:], options))
        return result

    @functools.wraps(method)
    async def awaited(*arguments, **options):
        if when == "before":
            fire(name, (arguments[1:], options))
        result = await method(*arguments, **options)
        if when == "after":
            fire(name, (arguments[1:], options))
        return result

    return awaited if asyncio.iscoroutinefunction(method) else plain


def patch(module):
    for name, (where, owner, method, when) in POINTS.items():
        if where == module.__name__:
            target = getattr(module, owner)
            setattr(target, method, wrapped(name, getattr(target, method), when))


class Loader(importlib.abc.Loader):
    def __init__(self, loader):
        self.loader = loader

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module):
        self.loader.exec_module(module)
        patch(module)


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name not in {point[0] for point in POINTS.values()}:
            return None
        for finder in sys.meta_path:
            if finder is not self and (spec := finder.find_spec(name, path, target)):
                spec.loader = Loader(spec.loader)
                return spec
        return None


if POINTS:
    sys.meta_path.insert(0, Finder())
