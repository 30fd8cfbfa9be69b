# ruff: noqa: E402  (thread counts must be set before numpy is loaded)
"""How much of an early layer's error later refits take back: the share that allocation assumes, on training images.

    python scripts/bench_allocation.py [--rates 0 0.02 0.05 0.1] [--depths 56 32] [--keep 0.3] [--images 256]
                                       [--compensation least_squares] [--data ../shared/data]

Calibration: unlabelled training images. Error (mean square of the logits' difference over the logits' variance),
divergence (Kullback-Leibler, nats) and agreement with the dense network: the 4061 training images behind the first
1024, which nothing else looks at. Test images are not read. Seconds: processor time, one thread.
"""

import argparse
import os
import time
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np
import reproduce_resnet56 as resnet
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.special import log_softmax

from provable.allocation import marginal_loss
from provable.pipeline import compress
from verify.network.module import NetworkModule
from verify.network.read_onnx import read_onnx

JUDGED_FROM = 1024

Logits = NDArray[np.float32]


def difference(dense: Logits, compact: Logits) -> tuple[float, float, float]:
    """Relative squared error, divergence, agreement."""
    error = np.square(dense - compact).mean() / dense.var(0).mean()
    expected, found = log_softmax(dense, 1), log_softmax(compact, 1)
    divergence = (np.exp(expected) * (expected - found)).sum(1).mean()
    return float(error), float(divergence), float((dense.argmax(1) == compact.argmax(1)).mean())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=resnet.ROOT / "../shared/data")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.0, 0.02, 0.05, 0.1])
    parser.add_argument("--depths", type=int, nargs="+", choices=(32, 56), default=[56, 32])
    parser.add_argument("--keep", type=float, default=0.3)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--compensation", default="least_squares")
    options = parser.parse_args()
    torch.set_num_threads(1)
    images = resnet.read_data(options.data, None, 0).calibration
    table = Table(title=f"{options.keep:g} of the multiply-adds, {options.images} images, {options.compensation}")
    for name in ("network", "share", "error", "divergence", "agreement", "cpu s"):
        table.add_column(name, justify="left" if name == "network" else "right")
    for depth in options.depths:
        network = read_onnx(options.data / "resnet" / f"resnet{depth}_cifar10.onnx")
        dense = resnet.logits(NetworkModule(network), images[JUDGED_FROM:])
        for rate in options.rates:
            marginal_loss.REPAIRED = rate
            begin = time.process_time()
            compact = compress(
                network, images[: options.images], keep={"flops": options.keep}, compensation=options.compensation
            ).compact
            seconds = time.process_time() - begin
            found = difference(dense, resnet.logits(NetworkModule(compact), images[JUDGED_FROM:]))
            shown = f"{rate:g}", f"{found[0]:.3f}", f"{found[1]:.3f}", f"{found[2]:.1%}", f"{seconds:.0f}"
            table.add_row(f"ResNet-{depth}", *shown)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
