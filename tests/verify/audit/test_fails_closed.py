"""Whatever any function of the auditor does wrong, raising or answering NaN, the verdict is not ACCEPT."""

import gc
import importlib
import os
import pkgutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from inspect import CO_GENERATOR
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import pytest

import verify.audit as package
from verify.audit import Verdict, audit
from verify.audit.check import audit as judged

GOLDEN = Path(__file__).parent / "golden"
NAMES = ["v0_float32", pytest.param("v0_real", marks=pytest.mark.slow)]
ERRORS = (KeyError, ValueError, ZeroDivisionError, MemoryError, RecursionError, AssertionError, OSError, StopIteration)


def everything() -> list[tuple[str, FunctionType]]:
    """All functions and methods of all modules of the auditor, with their place."""
    found = []
    for entry in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"verify.audit.{entry.name}")
        for name, value in vars(module).items():
            if getattr(value, "__module__", "") != module.__name__:
                continue
            inner = vars(value).items() if isinstance(value, type) else [("", value)]
            for method, candidate in inner:
                function = getattr(candidate, "func", getattr(candidate, "fget", candidate))
                plain = isinstance(function, FunctionType) and not function.__code__.co_freevars
                if plain and not method.startswith("__"):
                    found.append((f"{entry.name}.{name}.{method}".rstrip("."), function))
    return found


@contextmanager
def replaced(function: FunctionType, act: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """The function, whoever imported it, behaves as `act` of itself."""
    code = function.__code__
    honest = FunctionType(code, function.__globals__, function.__name__, function.__defaults__)
    honest.__kwdefaults__ = function.__kwdefaults__
    function.__globals__["__acting__"] = act(honest)
    try:
        function.__code__ = (lambda *a, **k: __acting__(*a, **k)).__code__  # type: ignore[name-defined]  # noqa: F821
        yield
    finally:
        function.__code__ = code
        del function.__globals__["__acting__"]


def verdict(name: str) -> Any:
    try:
        return audit(GOLDEN / f"{name}.json", GOLDEN / "original.onnx", GOLDEN / "compact.onnx").verdict
    except (*ERRORS, TypeError, AttributeError) as error:  # what stands outside the judgement itself may raise
        return error


def running(name: str) -> list[tuple[str, FunctionType]]:
    """The functions that an accepted audit calls."""
    seen = set()

    def watch(frame: Any, event: str, value: Any) -> None:
        seen.add(frame.f_code)

    sys.setprofile(watch)
    try:
        assert verdict(name) is Verdict.ACCEPT
    finally:
        sys.setprofile(None)
    return [(place, f) for place, f in everything() if f.__code__ in seen and f is not judged]


@pytest.mark.parametrize("name", NAMES)
def test_an_error_in_every_function_is_not_accepted(name: str) -> None:
    on_path = running(name)
    assert len(on_path) > 90
    for i, (place, function) in enumerate(on_path):
        for error in (ERRORS[i % len(ERRORS)],):

            def fail(honest: Callable[..., Any], error: type[Exception] = error) -> Callable[..., Any]:
                def failing(*_: Any, **__: Any) -> Any:
                    raise error("injected")

                return failing

            with replaced(function, fail):
                assert verdict(name) is not Verdict.ACCEPT, (place, error)
    assert verdict(name) is Verdict.ACCEPT


@pytest.mark.parametrize("name", NAMES)
def test_an_error_at_a_later_call_of_every_function_is_not_accepted(name: str) -> None:
    """Not the first call but the third: a half-done proof is no proof."""
    reached = 0
    for place, function in running(name):
        calls: list[int] = []

        def late(honest: Callable[..., Any], calls: list[int] = calls) -> Callable[..., Any]:
            def failing(*arguments: Any, **more: Any) -> Any:
                calls.append(1)
                if len(calls) == 3:
                    raise KeyError("injected")
                return honest(*arguments, **more)

            return failing

        with replaced(function, late):
            found = verdict(name)
        if len(calls) >= 3:
            reached += 1
            assert found is not Verdict.ACCEPT, place
    assert reached > 40


def verdicts_with_an_exception(name: str, times: tuple[int, ...], every: int) -> Counter[int]:
    """One verdict for every so many of the places where the auditor's sources call a function, in Python or in C.

    The audit is forked there the n-th time it comes by, for n in `times`; in the child that call raises. The result
    counts the exit statuses of the children: 0 means ACCEPT.
    """
    visits, found, parent = Counter[tuple[Any, int]](), Counter[int](), os.getpid()
    folder = str(Path(package.__file__).parent)

    def watch(frame: Any, event: str, _: Any) -> None:
        caller = {"c_call": frame, "call": frame.f_back}.get(event)
        resumed = event == "call" and frame.f_code.co_flags & CO_GENERATOR  # a generator is no call of its own
        if caller is None or resumed or not caller.f_code.co_filename.startswith(folder):
            return
        place = caller.f_code, caller.f_lasti
        if place not in visits and len(visits) % every:
            visits[place] = max(times)  # left out
        visits[place] += 1
        if visits[place] not in times:
            return
        child = os.fork()
        if not child:
            raise RuntimeError("injected")  # leaves the call, and ends the watch
        found[os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])] += 1

    status = 3
    collecting = gc.isenabled()
    gc.disable()  # what the collector calls here looks like a call of the auditor's, but exceptions are lost there
    sys.setprofile(watch)
    try:
        status = 0 if verdict(name) is Verdict.ACCEPT else 1
    finally:
        sys.setprofile(None)
        if os.getpid() != parent:
            os._exit(status)
        if collecting:
            gc.enable()
    assert status == 0
    return found


@pytest.mark.parametrize(
    ("name", "times", "every"),
    [("v0_decisions", (1,), 10), pytest.param("v0_decisions_float32", (1, 3), 1, marks=pytest.mark.slow)],
)
def test_an_exception_at_every_call_is_not_accepted(name: str, times: tuple[int, ...], every: int) -> None:
    found = verdicts_with_an_exception(name, times, every)
    assert found.total() * every > 1000
    assert set(found) == {1}


def test_what_the_garbage_collector_calls_is_no_call_of_the_auditor() -> None:
    def called(phase: str, _: object) -> None:
        """As hypothesis does to measure the collector's time."""

    before = gc.get_threshold()
    gc.callbacks.append(called)
    gc.set_threshold(10, 100, 100)
    try:
        found = verdicts_with_an_exception("v0_decisions", (1,), 10)
    finally:
        gc.callbacks.remove(called)
        gc.set_threshold(*before)
    assert set(found) == {1}


def poisoned(value: Any) -> tuple[Any, bool]:
    """The value with NaN for every floating-point number in it, and whether there was one."""
    if isinstance(value, float):
        return float("nan"), True
    if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size:
        return np.full_like(value, np.nan), True
    if isinstance(value, tuple | list) and value:
        items = [poisoned(item) for item in value]
        if type(value) in (tuple, list):
            return type(value)(item for item, _ in items), any(hit for _, hit in items)
    if (
        is_dataclass(value)
        and not isinstance(value, type)
        and type(value).__name__ in ("Form", "Real", "Slack", "Part")
    ):
        items = [(f.name, *poisoned(getattr(value, f.name))) for f in fields(value)]
        return replace(value, **{n: v for n, v, hit in items if hit}), any(hit for *_, hit in items)
    return value, False


HARMLESS = {
    "form.Term.reach",  # where it is not small, the entries themselves are measured
    "linear.Image.reach",  # the same
    "rules.difference",  # of two enclosures of D, one that is NaN is never the narrower
    "rules.slopes",  # it proposes slopes; NaN is tested on what is made of them
    "check._Enclosure.largest",  # words only, after every comparison
}


@pytest.mark.parametrize("name", NAMES)
def test_nan_from_every_function_is_not_accepted(name: str) -> None:
    hits, accepted = 0, []
    for place, function in running(name):
        found: list[bool] = []

        def poison(honest: Callable[..., Any], found: list[bool] = found) -> Callable[..., Any]:
            def poisoning(*arguments: Any, **more: Any) -> Any:
                value, hit = poisoned(honest(*arguments, **more))
                found.append(hit)
                return value

            return poisoning

        with replaced(function, poison), np.errstate(all="ignore"):
            outcome = verdict(name)
        if any(found) and place not in HARMLESS:
            hits += 1
            accepted += [place] if outcome is Verdict.ACCEPT else []
    assert not accepted
    assert hits > 30
