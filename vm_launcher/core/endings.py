"""What the last word of a guest means for the launcher."""

from copilot_agent.protocol import guest
from vm_launcher.core.events import End, Outcome
from vm_launcher.core.states import Wish


def end_of(said: guest.State, finishing: bool, wish: Wish) -> End:
    """`said` is retired or failed; was it asked for?"""
    if said.state == "failed":
        return End(
            Outcome.FAILED,
            f"the pilot gave up: {said.message or 'it said no reason'}",
            "vm-launcher doctor --manager URL checks the way to the manager; an enrolment secret "
            "binds to the first launcher that uses it: get a new one for this host",
            by_pilot=True,
        )
    if finishing or wish is not Wish.STOP:
        return End(Outcome.FINISHED, said.message or "the pilot has retired")
    return End(Outcome.STOPPED)
