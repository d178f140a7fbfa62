"""`copilot-manager`: the service and its care, on the machine that runs it."""

import argparse
import asyncio
import contextlib
import gc
import logging
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from copilot_agent.protocol.errors import CopilotError
from job_manager_adapter.cli import manager_backup, manager_config, manager_doctor, manager_secrets
from job_manager_adapter.descriptors import raise_limit
from job_manager_adapter.settings import Settings, config_file, load

GARBAGE_THRESHOLDS = (10_000, 5, 10)
"""Python's own let the manager look through all that it knows of 10,000 pilots, for 0.7 s and
several times, while as many jobs come in. Little here is garbage that counting does not free."""

EXAMPLES = """examples:
  copilot-manager serve                                  on http://127.0.0.1:8470, data in the default place
  copilot-manager --config manager.toml serve
  copilot-manager --data-dir /srv/copilot serve --port 0 any free port; the URL is in manager.url
  copilot-manager config init manager.toml               a file with every setting and its default
  copilot-manager enrolment create --count 10 --expires 7d --directory secrets/
  copilot-manager token create --role experiment --experiment default
  copilot-manager backup /var/backups/copilot
  copilot-manager doctor

Settings: --config FILE, else $COPILOT_MANAGER_CONFIG, else /etc/copilot/manager.toml, else defaults.
Exit codes: 0 fine, 1 refused or a check failed, 2 wrong usage, 130 interrupted.
"""  # noqa: E501 - one example a line


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="copilot-manager",
        description="Run and look after the service between pilots and an experiment's scheduler.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"copilot-manager {version('cloud-copilot')}"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings (TOML)")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="overrides data_dir")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands)
    manager_config.add_parser(commands)
    manager_doctor.add_parser(commands)
    manager_secrets.add_parsers(commands)
    manager_backup.add_parser(commands)
    return parser


def _add_serve(commands: Any) -> None:
    serve = commands.add_parser("serve", help="run the service until it is told to stop")
    serve.add_argument("--listen", metavar="ADDRESS", help="default 127.0.0.1")
    serve.add_argument("--port", type=int, help="default 8470; 0 takes any free one")
    serve.add_argument("--public-url", metavar="URL", help="how pilots reach it, if not directly")
    serve.add_argument("--tls-cert", metavar="FILE")
    serve.add_argument("--tls-key", metavar="FILE")
    serve.add_argument(
        "--behind-proxy", action="store_true", default=None, help="a proxy in front does TLS"
    )
    serve.add_argument("--verbose", action="store_true", help="log debug messages too")
    serve.set_defaults(run=run_serve)


def settings_of(args: argparse.Namespace) -> Settings:
    """The file's settings with the command line's on top. Raises `CopilotError`."""
    names = ("listen", "port", "public_url", "tls_cert", "tls_key", "behind_proxy")
    given = {f"server.{name}": getattr(args, name, None) for name in names}
    given["data_dir"] = args.data_dir
    overrides = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in given.items()
        if value is not None
    }
    return load(config_file(args.config), overrides)


def run_serve(args: argparse.Namespace) -> int:
    set_up_logging(verbose=args.verbose)
    asyncio.run(_serve(settings_of(args)))
    return 0


async def _serve(settings: Settings) -> None:
    from job_manager_adapter.app import Manager

    raise_limit()
    manager, stop = Manager(settings), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    gc.disable()  # a hundred thousand leases are read: none of that is garbage

    def ready(url: str) -> None:
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GARBAGE_THRESHOLDS)
        gc.enable()
        print(f"serving on {url}", flush=True)
        print(f"data and operator.token in {settings.data_dir}", flush=True)

    await manager.run(stop, ready)
    print("stopped", flush=True)


class OneLine(logging.Formatter):
    """A record is one line, whatever names and messages from outside contain."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)[:16_384]
        return "".join(
            char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
        )


def set_up_logging(*, verbose: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler])
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def complain(error: CopilotError) -> None:
    """What is wrong and what to do, on stderr."""
    print(f"error: {error.message}", file=sys.stderr)
    for field in error.errors:
        print(f"  {field.field}: {field.message}", file=sys.stderr)
    if error.remedy:
        print(f"  → {error.remedy}", file=sys.stderr)


def global_first(argv: Sequence[str]) -> list[str]:
    """`--config` and `--data-dir` may stand anywhere; the parser wants them in front."""
    front: list[str] = []
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        name, equals, _ = word.partition("=")
        if name not in ("--config", "--data-dir"):
            rest.append(word)
        elif equals:
            front.append(word)
        else:
            front += [word, *([value] if (value := next(words, None)) is not None else [])]
    return front + rest


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(global_first(sys.argv[1:] if argv is None else argv))
    args.load_settings = settings_of
    try:
        with contextlib.suppress(BrokenPipeError):
            return int(args.run(args))
    except CopilotError as error:
        complain(error)
        return 1
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
