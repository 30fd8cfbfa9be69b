"""The catalogue is complete, its declarations hold, and the documents agree with it."""

import re
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from provable import catalogue
from provable.catalogue import MODULES, details, document, method, methods, overview
from provable.cli import main
from provable.coresets.sparsify import SPARSIFIERS
from provable.errors import InputError
from provable.method import AXES, Method
from provable.pipeline import compress
from provable.recipes import RECIPES
from verify.survey import ALGORITHMS

ROOT = Path(__file__).parents[2]
every_method = pytest.mark.parametrize("known", methods(), ids=[m.name for m in methods()])


def test_every_module_of_the_catalogue_exists_once_and_declares_methods() -> None:
    assert len(set(MODULES)) == len(MODULES)
    for name in MODULES:
        assert import_module(name).METHODS


def test_every_module_that_declares_methods_is_in_the_catalogue() -> None:
    declaring = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / "provable").rglob("*.py")
        if any(line.startswith("METHODS") for line in path.read_text(encoding="utf-8").splitlines())
    }
    assert declaring == set(MODULES)


def test_every_recipe_is_a_method_and_needs_what_it_declares() -> None:
    for name, recipe in RECIPES.items():
        known = method(name)
        assert recipe.labels == (known.data == "labelled")
        assert known.use == f"provable compress --recipe {name}"


@every_method
def test_a_record_without_a_value_is_refused(known: Method) -> None:
    for field in asdict(known):
        with pytest.raises(InputError, match=field):
            replace(known, **{field: " "})
    for axis in AXES:
        with pytest.raises(InputError, match=axis):
            replace(known, **{axis: "whatever"})


@every_method
def test_what_is_used_exists(known: Method) -> None:
    """A recipe is a recipe, a command a command, an import an object."""
    words = known.use.split()
    if words[0] == "provable":
        assert words[1] in ("compress", "exact")
        assert words[1] != "compress" or words[2] == "--until" or words[3] in {*RECIPES, *SPARSIFIERS}
    else:
        module, _, name = words[0].rpartition(".")
        assert hasattr(import_module(module), name)


def home(known: Method) -> str:
    """The module whose header explains the method: that of its class or function, or the one that declares it."""
    if known.use.startswith("provable "):
        return next(name for name in MODULES if known in import_module(name).METHODS)
    module, _, name = known.use.split()[0].rpartition(".")
    return str(getattr(import_module(module), name).__module__)


@every_method
def test_every_method_has_a_page_that_names_its_file(known: Method) -> None:
    module = home(known)
    pages = [ROOT / "theory_notes" / page for page in re.findall(r"([a-z_]+\.md)", import_module(module).__doc__ or "")]
    assert pages, f"the header of {module} names no page of theory_notes"
    path = f"`{module.replace('.', '/')}.py`"
    assert any(path in page.read_text(encoding="utf-8") for page in pages), f"{pages} do not name {path}"


@every_method
def test_a_method_without_training_never_trains(known: Method, sketch, monkeypatch) -> None:
    """Neither recovery "none" nor "closed form" may make an optimiser, whatever the decision differentiates."""

    def refused(*_: object, **__: object) -> None:
        raise AssertionError(f"{known.name} trains, but says its recovery is {known.recovery!r}")

    words = known.use.split()
    if words[:3] != ["provable", "compress", "--recipe"]:
        return
    assert known.recovery in ("none", "closed form")
    monkeypatch.setattr(torch.optim.Optimizer, "step", refused)
    monkeypatch.setattr(torch.optim.Optimizer, "__init__", refused)
    s = sketch((1, 4, 4), dtype="float32")
    x = s.add("relu", s.norm(s.conv("x", 4, kernel=3)))
    network = s.network(s.linear(s.add("reshape", s.add("relu", s.norm(s.conv(x, 4))), shape=(64,)), 3))
    random = np.random.default_rng(0)
    keep = {"weights": 0.9} if known.name in SPARSIFIERS else {"flops": 0.8}
    labels = random.integers(3, size=16) if known.data == "labelled" else None
    result = compress(
        network, random.normal(size=(16, 1, 4, 4)).astype(np.float32), keep=keep, recipe=known.name, labels=labels
    )
    assert result.compact.parameters


PUBLISHED = {
    "PFP": "1911.07412", "CoreNet": "1804.05345", "SiPP": "1910.05422", "CaP": "2108.13728", "Taylor": "1906.10771",
    "channel similarity": "1908.02620", "functionality": "1810.07322", "C-SGD": "1904.03837", "GSM": "1909.12778",
    "SPP": "1709.06994", "DPF": "2006.07253", "DPP": "2105.12686", "DJPQ": "2007.10463", "privacy": "2003.06513",
    "prunability": "2103.06002", "multi-layer basis pursuit": "1806.00701",
}  # fmt: skip
"""System -> arXiv number of its paper; adaptive pruning is known from an abstract alone."""


@pytest.mark.parametrize("system", PUBLISHED)
def test_every_published_system_is_listed_with_its_reference_wherever_methods_are(system: str) -> None:
    number = PUBLISHED[system]
    assert any(f"arXiv {number}" in known.reference for known in methods())
    assert number in overview(methods())
    assert f"arXiv {number}" in (ROOT / "provable" / "METHODS.md").read_text(encoding="utf-8")


@every_method
def test_the_list_says_what_a_method_costs_and_who_published_it(known: Method) -> None:
    printed = overview([known], width=400)
    assert all(
        value in printed for value in (known.name, known.cost, known.reference, *(getattr(known, a) for a in AXES))
    )


def test_the_document_is_what_the_command_prints(capsys) -> None:
    assert main(["methods", "--markdown"]) == 0
    printed = capsys.readouterr().out
    assert printed == document(methods())
    message = "run `provable methods --markdown > provable/METHODS.md`"
    assert (ROOT / "provable" / "METHODS.md").read_text(encoding="utf-8") == printed, message


def test_the_readme_names_methods_that_exist_and_where_all_are_listed() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (paragraph,) = [p for p in text.split("\n\n") if p.startswith("Recipes: ")]
    named = re.findall(r"`([a-z0-9-]+)` \(", paragraph)
    assert len(named) >= 4
    assert set(named) <= set(RECIPES)
    assert "`provable methods`" in paragraph
    assert "`provable.training`" in paragraph
    assert "(provable/METHODS.md)" in paragraph
    (counted,) = re.findall(r"`verify methods`\s+lists the (\d+) algorithms", text)
    assert int(counted) == len(ALGORITHMS)


def test_the_command_lists_all_and_shows_one(capsys) -> None:
    assert main(["methods"]) == 0
    printed = capsys.readouterr().out
    assert printed == overview(methods())
    assert all(f"\n{known.name} " in printed for known in methods())
    assert main(["methods", "pfp"]) == 0
    assert capsys.readouterr().out == details(method("pfp"))
    assert main(["methods", "magic"]) == 3
    assert "known: greedy" in capsys.readouterr().err


def test_gaps_in_the_catalogue_are_errors(monkeypatch) -> None:
    for modules, words in (
        (("provable.errors",), "declares no METHODS"),
        (("provable.exact.prune",) * 2, "two methods"),
    ):
        methods.cache_clear()
        monkeypatch.setattr(catalogue, "MODULES", modules)
        with pytest.raises(InputError, match=words):
            methods()
    methods.cache_clear()
