"""Memory does not grow with the number of inputs, and where values live changes no bit."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from provable import room as rooms
from provable.calibration import as_batches, calibration_inputs
from provable.compensation.network_refinement import NetworkSchedule
from provable.compensation.refinement import Schedule
from provable.errors import OutputError
from provable.pipeline import compress
from provable.room import pieces, room
from verify.network.structure import write_structure

WITHIN = """
import resource, sys
from pathlib import Path
import torch
from provable import room
from provable.compensation import collect
from provable.calibration import read_calibration
from provable.pipeline import compress
from verify.network.structure import read_structure

torch.set_num_threads(1)
folder, held, allowance = Path(sys.argv[1]), *map(int, sys.argv[2:])
network = read_structure(folder / "structure.json", folder / "compact.safetensors")
inputs = read_calibration(folder / "inputs.npy")
room.IN_MEMORY, room.PIECE, collect.CELLS = held, 1 << 20, 1 << 17
run = lambda data: compress(network, data, keep={"flops": 0.5}, compensation="least_squares")
run(inputs[:16])
now = next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (now + allowance, now + allowance))
print([run(inputs[:count]).samples for count in (len(inputs) // 8, len(inputs))])
"""


def batches_of(count: int, size: int, shape: tuple[int, ...]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(size, *shape, generator=generator) for _ in range(count)]


def residual(sketch):
    s = sketch((3, 8, 8), dtype="float32")
    stem = s.add("relu", s.conv("x", 6, 3))
    branch = s.norm(s.conv(s.add("relu", s.conv(stem, 8, 3)), 6, 3))
    joined = s.add("relu", s.add("add", branch, stem))
    return s.network(s.linear(s.flat(s.add("relu", s.conv(joined, 5, 3, 2))), 4))


def test_pieces_cover_everything_once_in_multiples() -> None:
    for count, shape, multiple in [(0, (3,), 2), (7, (), 1), (1000, (64, 224, 224), 2), (100_000, (16, 8, 8), 2)]:
        found = list(pieces(count, shape, multiple))
        assert [i for piece in found for i in range(piece.start, piece.stop)] == list(range(count))
        assert all((piece.stop - piece.start) % multiple == 0 for piece in found[:-1])
        size = 4 * int(np.prod(shape, dtype=np.int64)) * multiple
        assert all((piece.stop - piece.start) * size <= max(rooms.PIECE, size) * multiple for piece in found)


@pytest.mark.parametrize("compensation", ["least_squares", "refine", "refine_network", "minimax", "batch_norm"])
def test_values_in_files_give_the_same_bits(sketch, monkeypatch, compensation: str) -> None:
    network, batches = residual(sketch), batches_of(3, 7, (3, 8, 8))
    for schedule in (Schedule, NetworkSchedule):
        monkeypatch.setattr(f"provable.pipeline.{schedule.__name__}", partial(schedule, steps=6))
    monkeypatch.setattr(rooms, "PIECE", 4096)
    in_memory = compress(network, batches, keep={"flops": 0.6}, compensation=compensation)
    files = list[int]()
    reserve = rooms._reserve
    monkeypatch.setattr(rooms, "_reserve", lambda file, size: (files.append(size), reserve(file, size)))
    monkeypatch.setattr(rooms, "IN_MEMORY", 0)
    in_files = compress(network, batches, keep={"flops": 0.6}, compensation=compensation)
    assert files
    assert in_files.compact.digest() == in_memory.compact.digest()
    assert in_files.layers == in_memory.layers


def test_batches_that_memory_should_not_hold_go_to_files_as_they_come(sketch, monkeypatch) -> None:
    network, batches = residual(sketch), batches_of(3, 7, (3, 8, 8))
    monkeypatch.setattr("provable.calibration.IN_MEMORY", 2 * batches[0].nbytes)
    held = as_batches(iter(batches))
    assert [batch is given for batch, given in zip(held, batches, strict=True)] == [True, True, False]
    np.testing.assert_array_equal(calibration_inputs(network, held), torch.cat(batches))


def test_a_full_disk_is_said(monkeypatch) -> None:
    def full(file: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rooms, "_reserve", full)
    with pytest.raises(OutputError, match=r"no room for 8 MB.*set TMPDIR"):
        room((2 << 20,), in_memory=0)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_DATA counts all private memory on Linux only")
def test_eight_times_the_inputs_need_no_more_memory(sketch, tmp_path: Path) -> None:
    s = sketch((3, 64, 64), dtype="float32")
    stem = s.add("relu", s.conv("x", 4, 3))
    joined = s.add("relu", s.add("add", s.conv(s.add("relu", s.conv(stem, 6, 3)), 4, 3), stem))
    write_structure(s.network(s.linear(s.flat(s.pool(joined, "average_pool", 8, 8)), 4)), tmp_path)
    np.save(tmp_path / "inputs.npy", np.random.default_rng(0).normal(size=(768, 3, 64, 64)).astype(np.float32))

    def within(held: int) -> bool:
        words = [sys.executable, "-c", WITHIN, tmp_path, held, 96 << 20]
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
        assert done.returncode == 0 or "alloc" in done.stderr or "MemoryError" in done.stderr, done.stderr
        return done.returncode == 0

    assert within(1 << 20)
    assert not within(1 << 40)  # 75 MB for one layer's values, several of them at a time
