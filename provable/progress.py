"""Telling the user how far a run is: the pipeline announces stages and steps, and does not know who listens."""

from typing import Protocol


class Progress(Protocol):
    """A listener."""

    def stage(self, name: str, steps: int) -> None:
        """A stage of `steps` steps begins; the one before is done."""

    def step(self, what: str) -> None:
        """One step of the current stage is done."""


class Silent:
    """Nobody listens."""

    def stage(self, name: str, steps: int) -> None:
        """Ignored."""

    def step(self, what: str) -> None:
        """Ignored."""
