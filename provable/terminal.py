"""Progress bars on stderr, shown only when a run takes longer than two seconds."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

PATIENCE = 2.0  # seconds


class ProgressBars:
    """One bar per stage; a context manager."""

    def __init__(self) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        self._bars = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task: TaskID | None = None
        self._started = time.monotonic()
        self._shown = False

    def __enter__(self) -> "ProgressBars":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            self._bars.stop()

    def stage(self, name: str, steps: int) -> None:
        """A new bar."""
        self._task = self._bars.add_task(name, total=steps)

    def step(self, what: str) -> None:
        """Advance the current bar."""
        if self._task is not None:
            self._bars.advance(self._task)
        if not self._shown and time.monotonic() - self._started > PATIENCE:
            self._shown = True
            self._bars.start()
