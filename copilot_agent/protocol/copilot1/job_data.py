"""What a job manager lets the agent carry along (jmJobData): `key=value####` after each other.

A list's items are joined by `::::`. The same form is the status in `haveStatus`. Newer agents take
it apart, add `wallTime` and put it together in another order; text in another form would come back
mangled from them. Here such text is kept to the letter.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from copilot_agent.protocol.copilot1.errors import refused

END, JOIN = "####", "::::"


@dataclass(frozen=True, slots=True)
class JobData:
    """Either values in their order, or opaque text."""

    values: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    opaque: str = ""

    def including(self, key: str, value: str | tuple[str, ...]) -> "JobData":
        """With one value more, or another one; opaque text stays as it is."""
        return self if self.opaque else JobData({**self.values, key: value})


def parse_job_data(text: str) -> JobData:
    """Never fails: what would not be written in the same way again is opaque."""
    pieces = text.split(END)
    pairs = [piece.partition("=") for piece in pieces[:-1]]
    values = {key: _value(rest) for key, _, rest in pairs}
    return JobData(values) if _joined(values) == text else JobData(opaque=text)


def _value(text: str) -> str | tuple[str, ...]:
    items = tuple(text.split(JOIN))
    return items if len(items) > 1 else text


def _joined(values: Mapping[str, str | tuple[str, ...]]) -> str:
    return "".join(
        f"{key}={value if isinstance(value, str) else JOIN.join(value)}{END}"
        for key, value in values.items()
    )


def job_data_text(data: JobData) -> str:
    """Raises StanzaError for values that would be read as others, such as those with `####`."""
    text = data.opaque or _joined(data.values)
    if parse_job_data(text) != data:
        raise refused("jmJobData", "a key or value in it cannot be written")
    return text
