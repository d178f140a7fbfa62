"""How often, and after how long, a VM that failed is booted again."""

from vm_launcher.core.states import Rules


class Restarts:
    """Counts failures in a row: with less than `stable_seconds` between two of them."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._failed_at = 0.0
        self.failures = 0

    def wait(self, now: float) -> float | None:
        """Seconds until the next boot after a failure now; None when it has been enough."""
        if now - self._failed_at > self._rules.stable_seconds:
            self.failures = 0
        self.failures, self._failed_at = self.failures + 1, now
        if self.failures > self._rules.restarts:
            return None
        wait = min(self._rules.first_wait * 2.0 ** (self.failures - 1), self._rules.longest_wait)
        return wait / 2 + wait / 2 * self._rules.chance()
