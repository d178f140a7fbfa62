"""Programs that jobs run, for as long as a test needs them."""

FOREVER = ("/bin/sh", "-c", "while :; do :; done")


def spin(turns: int) -> tuple[str, ...]:
    """Busy for a time; 300 000 turns take some ten seconds under emulation."""
    return ("/bin/sh", "-c", f"i=0; while [ $i -lt {turns} ]; do i=$((i+1)); done")
