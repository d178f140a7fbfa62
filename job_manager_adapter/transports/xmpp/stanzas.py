"""The manager's stanzas as text, in a component's stream."""

from xml.sax.saxutils import escape, quoteattr

from copilot_agent.protocol.errors import CopilotError
from copilot_agent.protocol.xmpp import NAMESPACE, end_element

_CONDITIONS = "urn:ietf:params:xml:ns:xmpp-stanzas"


class Writer:
    """`sender` is the component's name; ids come from pilots and are quoted."""

    def __init__(self, sender: str) -> None:
        self._from = quoteattr(sender)

    def iq(self, kind: str, to: str, number: str, content: str = "") -> str:
        end = f">{content}</iq>" if content else "/>"
        return f"<iq type='{kind}' from={self._from} to='{to}' id={quoteattr(number)}{end}"

    def refusal(self, to: str, number: str, condition: str, detail: str = "") -> str:
        kind = "wait" if condition == "resource-constraint" else "cancel"
        error = f"<error type='{kind}'><{condition} xmlns='{_CONDITIONS}'/>{detail}</error>"
        return self.iq("error", to, number, error)


def frame(part: str, more: bool, attach: str) -> str:
    """One piece of a frame."""
    rest = " more='1'" if more else ""
    return f"<frame xmlns='{NAMESPACE}' attach={quoteattr(attach)}{rest}>{escape(part)}</frame>"


def end(error: CopilotError, attach: str) -> str:
    element = end_element(error.code, error.message, attach)
    code, text = element.get("code", ""), escape(element.text or "")
    return f"<end xmlns='{NAMESPACE}' code='{code}' attach={quoteattr(attach)}>{text}</end>"
