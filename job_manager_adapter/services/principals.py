"""Who asks, and what that allows."""

from dataclasses import dataclass

from job_manager_adapter.services.errors import ForbiddenError
from job_manager_adapter.views import Role


@dataclass(frozen=True)
class Principal:
    """The bearer of a user token. `experiment` is None for operators only."""

    token: str
    role: Role
    experiment: str | None = None

    def may_see(self, experiment: str) -> bool:
        return self.role is Role.OPERATOR or self.experiment == experiment

    def require_operator(self) -> None:
        """Raises ForbiddenError for everyone else."""
        if self.role is not Role.OPERATOR:
            raise ForbiddenError("only an operator may do this", remedy="use an operator's token")

    def scope(self, asked: str | None) -> str | None:
        """The experiment to look at: the asked one, or the caller's own; None means all.

        Raises ForbiddenError for somebody else's experiment.
        """
        if asked is not None and not self.may_see(asked):
            raise ForbiddenError(
                f"this token does not belong to experiment {asked}",
                remedy=f"use a token of {asked}, or leave the experiment out",
            )
        return asked if self.role is Role.OPERATOR else self.experiment
