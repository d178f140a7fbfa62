import json
import logging

from copilot_agent import logs


def record(message: str, **extra: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "x", "levelno": 30, "levelname": "WARNING"})
    made.msg = message
    made.__dict__.update(extra)
    return made


def test_text_from_outside_cannot_forge_a_line() -> None:
    line = logs.TextFormatter().format(record("a\nfake\x1b[2J \u202e"))
    assert "\n" not in line
    assert line.endswith(r"a\nfake\x1b[2J \u202e")


def test_json_lines_carry_the_keys() -> None:
    entry = json.loads(logs.JsonFormatter().format(record("a\nb", job="j-1", attempt=2)))
    assert (entry["message"], entry["job"], entry["attempt"]) == ("a\nb", "j-1", 2)


def test_the_forwarder_takes_warnings_only() -> None:
    sent: list[tuple[str, str]] = []
    logger = logging.Logger("x")
    logger.addHandler(logs.Forwarder(lambda level, line: sent.append((level, line))))
    logger.info("quiet")
    logger.warning("careful\n")
    logger.error("bad")
    assert sent == [("warning", r"careful\n"), ("error", "bad")]
