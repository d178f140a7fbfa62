"""`docs/protocol.md`: every model of the conversation, from the classes themselves."""

import ast
import inspect
from collections.abc import Iterator
from enum import StrEnum
from types import ModuleType
from typing import Any

from pydantic import BaseModel

from copilot_agent.protocol import (
    capabilities,
    enrolment,
    errors,
    frames,
    guest,
    job,
    receipt,
    xmpp,
)
from job_manager_adapter import views

CHAPTERS: tuple[tuple[str, ModuleType], ...] = (
    ("Jobs", job),
    ("Capabilities", capabilities),
    ("Enrolment", enrolment),
    ("Frames", frames),
    ("Frames over XMPP", xmpp),
    ("Receipts", receipt),
    ("Guest channel", guest),
    ("Errors", errors),
    ("Views of the user API", views),
)


def page() -> str:
    """The whole page as Markdown."""
    parts = [
        "# Protocol reference\n",
        "Generated from the models by `python -m deploy.docs`; do not edit. How the conversation "
        "goes is told in [architecture.md](architecture.md), the words in "
        "[glossary.md](glossary.md), HTTP routes and files in [http.md](http.md).\n",
    ]
    for title, module in CHAPTERS:
        parts.append(f"## {title}\n\n{inspect.getdoc(module)}\n")
        parts.extend(_section(cls) for cls in _classes(module))
    return "\n".join(parts)


def _classes(module: ModuleType) -> Iterator[type]:
    """Own models and enumerations, in the order of the file."""
    for value in vars(module).values():
        if not (inspect.isclass(value) and value.__module__ == module.__name__):
            continue
        if issubclass(value, BaseModel | StrEnum):
            yield value


def _section(cls: type) -> str:
    heading = f"### {cls.__name__}\n\n"
    text = inspect.cleandoc(cls.__doc__ or "")
    notes = attribute_notes(cls)
    if issubclass(cls, StrEnum):
        rows = [f"| `{member.value}` | {notes.get(member.name, '')} |" for member in cls]
        table = "\n".join(["| value | meaning |", "|---|---|", *rows])
    elif issubclass(cls, BaseModel):
        table = _fields(cls, notes)
    else:
        raise TypeError(cls)
    return f"{heading}{text}\n\n{table}\n" if text else f"{heading}{table}\n"


def _fields(cls: type[BaseModel], notes: dict[str, str]) -> str:
    schema = cls.model_json_schema()
    rows = []
    for name, value in schema.get("properties", {}).items():
        default = "" if name in schema.get("required", ()) else f"`{_default(value)}`"
        rows.append(f"| `{name}` | {kind(value)} | {default} | {notes.get(name, '')} |")
    return "\n".join(["| field | type | default | |", "|---|---|---|---|", *rows])


def _default(schema: dict[str, Any]) -> str:
    # a mapping that is made each time has no default in the schema
    empty: dict[str, Any] | None = {} if schema.get("type") == "object" else None
    default = schema.get("default", empty)
    return "…" if isinstance(default, dict) and default else str(default).replace("|", "\\|")


def kind(schema: dict[str, Any]) -> str:
    """One property's type and bounds in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(kind(option) for option in schema["anyOf"])
    if "const" in schema:
        return f"`{schema['const']!r}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {kind(schema.get('items', {}))}{_bounds(schema, 'minItems', 'maxItems')}"
    if schema.get("type") == "string":
        return f"text{_bounds(schema, 'minLength', 'maxLength')}{_pattern(schema)}"
    return f"{schema.get('type', 'object')}{_bounds(schema, 'minimum', 'maximum')}"


def _bounds(schema: dict[str, Any], low: str, high: str) -> str:
    if low not in schema and high not in schema:
        return ""
    return f", {schema.get(low, '')}…{schema.get(high, '')}"


def _pattern(schema: dict[str, Any]) -> str:
    pattern = schema.get("pattern", "")
    if not pattern:
        return ""
    return f" like `{ascii(pattern)[1:-1]}`".replace("\\\\", "\\").replace("|", "\\|")


def attribute_notes(cls: type) -> dict[str, str]:
    """Docstrings below attributes and `#:` comments behind enumeration members."""
    source = inspect.getsource(cls)
    notes: dict[str, str] = {}
    tree = ast.parse(source).body[0]
    if not isinstance(tree, ast.ClassDef):
        raise TypeError(cls)
    lines = source.splitlines()
    for node, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        name = _target(node)
        if name is None:
            continue
        comment = lines[node.lineno - 1].partition("#:")[2].strip()
        notes[name] = comment or _docstring(after)
    return notes


def _target(node: ast.stmt) -> str | None:
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return node.target.id
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    return None


def _docstring(node: ast.stmt | None) -> str:
    match node:
        case ast.Expr(value=ast.Constant(value=str(text))):
            return " ".join(text.split()).replace("|", "\\|")
    return ""
