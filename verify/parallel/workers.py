"""A function applied to many items through a `concurrent.futures.Executor`; a lost worker costs its items' time only.

    Here         in this process
    Processes    a ProcessPoolExecutor; when a worker dies, a new pool does the unfinished items again
    Cluster      the executor of a Dask client; the scheduler gives a lost worker's items to another one

Not claimed: that an item which kills every worker can be finished; after `MOST_LOSSES` losses without any result in
between, the rest is given up (`WorkersLost`).
"""

import multiprocessing
import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from verify.errors import SpecificationError

Item = TypeVar("Item")
Result = TypeVar("Result")
MOST_LOSSES = 3


class WorkersLost(Exception):
    """Workers died again and again without finishing anything."""


class Workers(Protocol):
    """Somewhere to run a function."""

    @property
    def count(self) -> int:
        """Items that run at the same time."""

    def each(
        self, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> Generator[tuple[int, Result], None, None]:
        """Pairs (position, result) as they are finished; closing the iterator drops what has not begun.

        Raises:
            WorkersLost: see the file's head. Exceptions of `function` are raised as they are.
        """


class Here:
    """One item after the other in this process."""

    count = 1

    def each(
        self, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> Generator[tuple[int, Result], None, None]:
        for position, item in enumerate(items):
            yield position, function(item)


class Processes:
    """`count` processes of this machine; a context manager, as they must be ended.

    Raises:
        SpecificationError: fewer than one process.
    """

    def __init__(self, count: int) -> None:
        if count < 1:
            raise SpecificationError(f"need at least one worker, got {count}")
        self.count = count
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def _executor(self) -> Executor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")  # a fork copies the locks of torch's threads
            self._pool = ProcessPoolExecutor(self.count, mp_context=context, initializer=_one_thread)
        return self._pool

    def each(
        self, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> Generator[tuple[int, Result], None, None]:
        yield from _each(self._executor, self._close, function, items)


class Cluster:
    """The workers of a Dask cluster; a context manager.

    Args:
        address: of the scheduler, such as ``tcp://host:8786``.

    Raises:
        SpecificationError: dask.distributed is not installed, or no scheduler answers.
    """

    def __init__(self, address: str, *, seconds: float = 10.0) -> None:
        try:
            distributed = import_module("distributed")
        except ImportError as error:
            raise SpecificationError("--cluster needs dask.distributed: pip install distributed") from error
        try:
            self._client: Any = distributed.Client(address, timeout=seconds)
        except (OSError, ValueError) as error:
            raise SpecificationError(f"no Dask scheduler answers at {address}: {error}") from error
        self.count = max(1, sum(self._client.nthreads().values()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def each(
        self, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> Generator[tuple[int, Result], None, None]:
        yield from _each(self._client.get_executor, lambda: None, function, items)


def _each(
    executor: Callable[[], Executor],
    renew: Callable[[], None],
    function: Callable[[Item], Result],
    items: Sequence[Item],
) -> Generator[tuple[int, Result], None, None]:
    """Submit everything, again what a lost worker took along."""
    waiting, losses = set(range(len(items))), 0
    while waiting:
        futures: dict[Future[Result], int] = {}
        try:
            pool = executor()
            futures = {pool.submit(function, items[i]): i for i in sorted(waiting)}
            for future in as_completed(futures):
                result = future.result()
                waiting.discard(futures[future])
                losses = 0
                yield futures[future], result
        except Exception as error:
            if not _is_loss(error):
                raise
            losses += 1
            renew()
            if losses > MOST_LOSSES:
                raise WorkersLost(
                    f"workers died {losses} times in a row; {len(waiting)} items are unfinished"
                ) from error
        finally:
            for future in futures:
                future.cancel()


def _is_loss(error: Exception) -> bool:
    """Whether a worker died, in the words of either executor."""
    return isinstance(error, BrokenProcessPool) or type(error).__name__ in ("KilledWorker", "CommClosedError")


def _one_thread() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported, with the first item
