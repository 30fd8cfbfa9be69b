"""A training loop of your own, and the three lines that make it end in a sparse network: copy this file.

    python examples/compress_while_training.py [--steps 800] [--checkpoint run.pt]

Digits that ship with the package, a GPU where there is one. With --checkpoint the run is saved every 100 steps and goes
on where it stopped, to the same bits on the same machine. The three lines are marked; another method is another class
of `provable.training`.
"""

import argparse
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from torch import nn

from provable.reference import images
from provable.training import DPF, remove_idle
from verify import NetworkModule

EVERY = 100  # steps between checkpoints


def network() -> nn.Module:
    """Put your network here."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 48), nn.ReLU(), nn.Linear(48, 10))


def main(words: list[str] | None = None) -> float:
    """Train, compress, and say what is left; returns the share of held-out images that it gets right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--stop", type=int, help="stop after so many steps, as if the machine went down")
    options = parser.parse_args(words)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train, fresh = images("mlp", "calibration"), images("mlp", "held_out")
    x, y = torch.from_numpy(train.images).to(device), torch.from_numpy(train.labels).to(device)

    model = network().to(device)
    pruner = DPF(model, sparsity=0.8, steps=options.steps // 2)  # 1
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    order, done = torch.Generator().manual_seed(0), 0
    if options.checkpoint and options.checkpoint.exists():
        state = torch.load(options.checkpoint, weights_only=True, map_location=device)
        for part in (model, optimizer, pruner):
            part.load_state_dict(state[type(part).__name__])
        order.set_state(state["order"].cpu())
        done = state["done"]

    steps = range(done, min(options.steps, options.stop or options.steps))
    for step in track(steps, description="training", console=Console(stderr=True), disable=len(steps) < EVERY):
        rows = torch.randint(len(y), (64,), generator=order).to(device)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
        pruner.step()  # 2
        if options.checkpoint and (step + 1) % EVERY == 0:
            state = {type(part).__name__: part.state_dict() for part in (model, optimizer, pruner)}
            torch.save({**state, "order": order.get_state(), "done": step + 1}, options.checkpoint)
    if len(steps) and steps[-1] + 1 < options.steps:
        print(f"stopped after {steps[-1] + 1} steps; run it again to go on")
        return 0.0

    result = remove_idle(pruner.finish().eval().cpu(), torch.zeros(1, 64))  # 3
    with torch.no_grad():
        answers = NetworkModule(result.compact)(torch.from_numpy(fresh.images)).argmax(1)
    correct = float((answers == torch.from_numpy(fresh.labels)).double().mean())
    nonzero = sum(int((array != 0).sum()) for array in result.compact.parameters.values())
    print(
        f"{result.before.parameters:,} parameters, {result.after.parameters:,} after idle neurons left, {nonzero:,} of "
        f"them not 0; {correct:.1%} of the held-out images"
    )
    return correct


if __name__ == "__main__":
    main()
