"""`copilot-manager config`: what the settings are, where they come from, whether they are right."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from copilot_agent.protocol.errors import CopilotError
from job_manager_adapter.settings import Settings, config_file, load, read_config


def add_parser(commands: Any) -> None:
    config = commands.add_parser("config", help="show, check or write the settings")
    actions = config.add_subparsers(required=True, metavar="ACTION")
    show = actions.add_parser("show", help="every setting as TOML")
    show.add_argument("--origin", action="store_true", help="say where each value comes from")
    show.set_defaults(run=show_settings)
    check = actions.add_parser("check", help="0 if the settings are right, else each mistake")
    check.set_defaults(run=check_settings)
    init = actions.add_parser("init", help="write a file with every setting and its default")
    init.add_argument("file", type=Path, metavar="FILE")
    init.set_defaults(run=init_settings)


def show_settings(args: argparse.Namespace) -> int:
    settings = args.load_settings(args)
    path = config_file(args.config)
    given = set(_leaves(read_config(path))) if args.origin else set()
    for name, value in lines(settings):
        if name is None:
            print(value)
        elif args.origin:
            print(f"{value:60} # {_origin(name, given, path, args)}")
        else:
            print(value)
    return 0


def check_settings(args: argparse.Namespace) -> int:
    from job_manager_adapter.app import build_adapters

    build_adapters(args.load_settings(args))
    print(f"{config_file(args.config) or 'the defaults'}: fine")
    return 0


def init_settings(args: argparse.Namespace) -> int:
    settings = load(None, {"data_dir": str(args.data_dir)} if args.data_dir else None)
    text = "".join(f"{value}\n" for _, value in lines(settings))
    try:
        with args.file.open("x", encoding="utf-8") as file:
            file.write(f"# Settings of copilot-manager; what you leave out has this value.\n{text}")
    except FileExistsError as error:
        raise CopilotError(
            f"{args.file} is there already", remedy="move it away, or give another name"
        ) from error
    print(f"wrote {args.file}")
    return 0


def lines(settings: Settings) -> Iterator[tuple[str | None, str]]:
    """TOML lines; the first of a pair is the setting's dotted name."""
    content = settings.model_dump(mode="json")
    absent = {name: model for name, model in _sections() if content[name] is None}
    plain = {k: v for k, v in content.items() if k not in absent and not isinstance(v, dict)}
    yield from _table("", plain)
    for name, model in absent.items():
        yield from _absent(name, model)
    for name, table in content.items():
        if name == "experiments":
            for experiment, options in table.items():
                yield from _table(f"experiments.{experiment}", options)
        elif isinstance(table, dict):
            yield from _table(name, table)


def _sections() -> Iterator[tuple[str, type[BaseModel]]]:
    """Sections that may be left out as a whole, with what they are made of."""
    for name, field in Settings.model_fields.items():
        for part in get_args(field.annotation):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield name, part


def _absent(name: str, model: type[BaseModel]) -> Iterator[tuple[str | None, str]]:
    yield None, f"\n# [{name}]"
    for key, field in model.model_fields.items():
        default = "" if field.is_required() else f" {_value(field.get_default())}"
        yield f"{name}.{key}", f"# {key} ={default}"


def _value(value: object) -> str:
    return "" if value is None else json.dumps(value, default=str)


def _table(name: str, values: dict[str, Any]) -> Iterator[tuple[str | None, str]]:
    if name:
        yield None, f"\n[{name}]"
    for key, value in values.items():
        dotted = f"{name}.{key}".lstrip(".")
        if value is None:
            yield dotted, f"# {key} ="
        elif isinstance(value, dict):
            yield dotted, f"{key} = {_inline(value)}"
        else:
            yield dotted, f"{key} = {json.dumps(value)}"


def _inline(values: dict[str, Any]) -> str:
    inside = ", ".join(f"{key} = {json.dumps(value)}" for key, value in values.items())
    return f"{{ {inside} }}" if inside else "{}"


def _leaves(content: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _origin(name: str, given: set[str], path: Path | None, args: argparse.Namespace) -> str:
    if name == "data_dir" and args.data_dir:
        return "command line"
    return str(path) if name in given else "default"
