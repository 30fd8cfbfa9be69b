"""Rows of the scores and selections that are applied after training, on the same networks."""

import time
from dataclasses import replace

import numpy as np
import torch
from seed_outcomes import POINT, Outcome, longer, lost, momentum, noise, seen, system, zeros
from seed_tasks import BATCH, Start, Task, accuracy, cooled, fit, moved, narrowed, resnet

from provable.cost import count_flops
from provable.pipeline import compress
from provable.records import Compression
from provable.structural_search import accuracy_of, structural_search
from verify.network.graph import Network
from verify.network.read_export import trace

IMAGES = 512  # calibration images
MORE = (0.8, 0.9, 0.95)  # shares of weights to keep, where fewer lose too much


def smaller(start: Start, keep: dict[str, float], recipe: str, **options: object) -> Compression:
    """One of the methods that do not train."""
    calibration = start.train.images[:IMAGES]
    labels = start.train.labels[:IMAGES]
    return compress(start.module, calibration, keep=keep, recipe=recipe, labels=labels, **options)  # type: ignore[arg-type]


def without_training(start: Start, result: Compression, what: str, holds: bool, labels: str = "unlabelled") -> Outcome:
    """The row of a result that nothing was trained for."""
    drop, images = lost(start, result.compact), min(IMAGES, len(start.train))
    claim = f"{count_flops(result.compact) / count_flops(start.network):.0%} of the multiply-adds at {-drop:+.2%}{what}"
    return Outcome(
        start, start.network, result.compact, dict(result.channels), f"{images} {labels}", "none", claim, holds
    )


def chance(start: Start, flops: float, **options: object) -> float:
    """What filters drawn by chance lose, the mean of three draws."""
    drawn = [smaller(start, {"flops": flops}, "random", generator=seed, **options) for seed in range(3)]
    return float(np.mean([lost(start, result.compact) for result in drawn]))


@system("pfp")
def pfp(task: Task) -> Outcome:
    start = task.start("cnn")
    result, by_chance = smaller(start, {"flops": 0.5}, "pfp"), chance(start, 0.5)
    holds = lost(start, result.compact) < by_chance
    return without_training(start, result, f"; filters drawn by chance {-by_chance:+.2%}", holds)


@system("corenet")
def corenet(task: Task) -> Outcome:
    return _coreset(task, "corenet")


@system("sipp")
def sipp(task: Task) -> Outcome:
    return _coreset(task, "sipp")


def _coreset(task: Task, recipe: str) -> Outcome:
    start = task.start("mlp")
    result = smaller(start, {"weights": 0.3 if recipe == "sipp" else 0.6}, recipe)
    drop = lost(start, result.compact)
    weights = [result.compact.parameters_of(n)["weight"] for n in result.compact if n.op == "linear"]
    kept = ", ".join(f"{np.count_nonzero(w) / w.size:.0%}" for w in weights)
    claim = (
        f"{zeros(result.compact):.1%} of the weights are 0 at {-drop:+.2%} accuracy, nothing trained; of the "
        f"layers that are left {kept} stays"
    )
    if drop > POINT:
        gains = {share: 0.0 - lost(start, smaller(start, {"weights": share}, recipe).compact) for share in MORE}
        claim += "; tried too: " + ", ".join(f"{share:.0%} of the weights kept, {g:+.1%}" for share, g in gains.items())
    return Outcome(start, start.network, result.compact, dict(result.channels), f"{IMAGES} unlabelled", "none", claim,
                   drop <= POINT)  # fmt: skip


def finetuned(start: Start, result: Compression, steps: int, lr: float = 1e-3, decay: float = 0.01) -> Network:
    """Trained on."""
    module = narrowed(start.module, result.state_dict or {})
    fit(module, start.train, torch.optim.AdamW(module.parameters(), lr=lr, weight_decay=decay), steps, rate=cooled)
    return trace(module, start.example)


@system("taylor")
def taylor(task: Task) -> Outcome:
    start, steps = task.start("cnn"), task.steps(300)
    ours = smaller(start, {"flops": 0.7}, "taylor", compensation="none")
    alone, by_chance = lost(start, ours.compact), chance(start, 0.7, compensation="none")
    compact = finetuned(start, ours, steps)
    what = f"; before the finetune {-alone:+.1%}, by chance {-by_chance:+.1%}"
    holds = alone < by_chance and lost(start, compact) <= POINT
    found = without_training(start, replace(ours, compact=compact), what, holds)
    return replace(found, data=seen(start), retraining=f"{steps} steps")


@system("similarity")
def similarity(task: Task) -> Outcome:
    start, steps = task.start("cnn"), task.steps(2000)
    ours = smaller(start, {"flops": 0.7}, "similarity", compensation="none")
    alone, compact = lost(start, ours.compact), finetuned(start, ours, steps, lr=2e-3, decay=0.2)
    what = (
        f"; before the finetune {-alone:+.1%}; the whole network trained on as long: {longer(task, 'cnn', steps):+.2%}"
    )
    found = without_training(start, replace(ours, compact=compact), what, lost(start, compact) <= noise(start))
    return replace(found, data=f"choice: none; {seen(start)}", retraining=f"{steps} steps")


@system("functionality")
def functionality(task: Task) -> Outcome:
    start = task.start("cnn")
    ours = smaller(start, {"flops": 0.7}, "functionality")
    alone = lost(start, smaller(start, {"flops": 0.7}, "functionality", compensation="none").compact)
    by_chance = chance(start, 0.7), chance(start, 0.7, compensation="none")
    holds = alone < by_chance[1] and lost(start, ours.compact) <= POINT
    what = f", by chance {-by_chance[0]:+.2%}; without refitting {-alone:+.1%}, by chance {-by_chance[1]:+.1%}"
    return without_training(start, ours, what, holds, "labelled")


@system("cap")
def cap(task: Task) -> Outcome:
    """Beside pruning by norms with retraining, which stops as soon as it is as accurate; it may look at held-out."""
    start = task.start("cnn") if task.folder is None else resnet(task.folder, validate=task.validate)
    start.module.requires_grad_(True)
    images, epochs = (IMAGES, 4) if task.folder is None else (256, 6)
    began = time.process_time()
    ours = compress(start.module, start.train.images[:images], keep={"flops": 0.6}, recipe="cap")
    mine, wanted = time.process_time() - began, accuracy(ours.compact, start.held_out)
    reached, rounds, spent = retrained_as_usual(start, wanted, epochs)
    told = "as accurate" if reached >= wanted else f"still only {reached:.2%}"
    what = (
        f", {images} images without labels, {mine:.0f} s; pruned by norms and retrained: {told} after {rounds} of "
        f"{epochs} epochs on {len(start.train):,} labelled images, {spent:.0f} s"
    )
    usable = reached > 0.5  # or else the comparison says nothing
    holds = usable and mine <= 0.1 * spent and images <= 0.1 * len(start.train)
    found = without_training(start, ours, what, holds)
    return replace(found, data=f"{images} unlabelled", seconds=mine)


@system("cap-search")
def cap_search(task: Task) -> Outcome:
    """One number is given, the accuracy that may be lost on images that gave no statistics."""
    start = task.start("cnn")
    rows = slice(IMAGES, 2 * IMAGES)
    score = accuracy_of(torch.from_numpy(start.train.images[rows]), start.train.labels[rows])
    found = structural_search(start.module, start.train.images[:IMAGES], score, lowest=score(start.network) - 0.01)
    compact, allowed = found.result.compact, found.start - 0.01
    what = (
        f"; {', '.join(f'{row.kept}/{row.total}' for row in found.rows)} channels, found by "
        f"{sum(row.trials for row in found.rows)} scorings on {IMAGES} other images, {found.end:.2%} of them right (at "
        f"least {allowed:.2%} allowed)"
    )
    row = without_training(start, found.result, what, found.end >= allowed and lost(start, compact) <= POINT)
    return replace(row, data=f"{IMAGES} unlabelled, {IMAGES} labelled")


def retrained_as_usual(start: Start, wanted: float, epochs: int) -> tuple[float, int, float]:
    """Smallest filters away, then momentum with a rate that falls, flips and shifts on photographs.

    Returns:
        Accuracy reached, epochs taken (fewer if it is as wanted after one of them), processor seconds of the training.
    """
    began = time.process_time()
    pruned = compress(start.module, start.train.images[:2], keep={"flops": 0.6}, recipe="l1-norm", compensation="none")
    module = narrowed(start.module, pruned.state_dict or {})
    spent, reached, rounds = time.process_time() - began, 0.0, 0
    optimizer, photographs = momentum(module, 0.01), start.train.images.shape[1] == 3
    while reached < wanted and rounds < epochs:
        began = time.process_time()
        rate = cooled(rounds / epochs)
        fit(module, start.train, optimizer, len(start.train) // BATCH, rate=lambda _, r=rate: r, seed=rounds,
            **({"change": moved} if photographs else {}))  # fmt: skip
        spent, rounds = spent + time.process_time() - began, rounds + 1
        reached = accuracy(module, start.held_out)
    return reached, rounds, spent
