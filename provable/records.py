"""What compression returns: the compact network, where its channels come from, and what is known about every layer."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from provable.bounds.a_priori import APrioriBound
from provable.compensation.sequential import LayerFit
from provable.cost import count_bytes, count_flops, count_parameters
from verify.network.graph import Network

if TYPE_CHECKING:
    from verify.network.module import NetworkModule


@dataclass(frozen=True)
class GroupReport:
    """One prunable group: what was promised, what was measured.

    Attributes:
        group: its name (that of its first producer).
        consumers: the layers that read it.
        kept, total: slots after and before.
        total_sensitivity: T (theory_notes/sensitivity_sampling.md); None if not measured.
        sensitivity_images: images behind T.
        bound: what was promised before the choice; None for a group that stays whole.
        method: how the slots were chosen.
        loss: exact calibration squared error at the consumers, relative to the variance of the streams they feed; None
            where nothing was calibrated.
        held_out_loss: the same on calibration images that the fit did not see; None without compensation.
        ridge: largest relative ridge in use at the consumers; None without compensation.
        note: what the user should know.
    """

    group: str
    consumers: tuple[str, ...]
    kept: int
    total: int
    total_sensitivity: float | None
    sensitivity_images: int
    bound: APrioriBound | None
    method: str
    loss: float | None
    held_out_loss: float | None
    ridge: float | None
    note: str

    def as_json(self) -> dict[str, Any]:
        """The row of layers.json."""
        row = asdict(self)
        row["consumers"] = list(self.consumers)
        if self.bound is not None:
            row["bound"]["vacuous"] = self.bound.vacuous
        return row


@dataclass(frozen=True)
class Cost:
    """Size of a network: multiply-adds of conv and linear for one input, stored numbers, and stored bytes."""

    flops: int
    parameters: int
    bytes: int

    @staticmethod
    def of(network: Network) -> "Cost":
        """Counted on the network."""
        return Cost(count_flops(network), count_parameters(network), count_bytes(network))


@dataclass(frozen=True)
class Compression:
    """The result.

    Attributes:
        original: the network that was compressed.
        compact: the smaller network; node names are the original's.
        channels: content of channels.json, where the compact network's positions come from.
        kept: group -> slots that stay, for every prunable group in the scope.
        groups: one report per prunable group.
        layers: one record per refitted consumer, in network order.
        before, after: cost of the two networks.
        settings: what was asked for: keep, recipe, compensation, scope, floor, round_to, batch, seed.
        knob, knob_meaning: the number that settled the allocation.
        surgery_error: largest relative difference between the shrunken and the masked network, in float64.
        samples: calibration inputs.
        calibration_digest: SHA-256 over them.
        calibration_rows: SHA-256 of each of them.
        seconds: wall clock per stage.
        state_dict: for the user's own class at the compact widths; None if the input was no module.
        notes: what the user should know.
    """

    original: Network
    compact: Network
    channels: Mapping[str, Any]
    kept: Mapping[str, tuple[int, ...]]
    groups: tuple[GroupReport, ...]
    layers: tuple[LayerFit, ...]
    before: Cost
    after: Cost
    settings: Mapping[str, Any]
    knob: float
    knob_meaning: str
    surgery_error: float
    samples: int
    calibration_digest: str
    calibration_rows: tuple[str, ...]
    seconds: Mapping[str, float]
    state_dict: Mapping[str, Tensor] | None = field(default=None)
    notes: tuple[str, ...] = field(default=())

    def module(self) -> "NetworkModule":
        """The compact network as a torch module (float32)."""
        from verify.network.module import NetworkModule

        return NetworkModule(self.compact)

    def save(
        self,
        folder: Path | str,
        *,
        original: Path | None = None,
        force: bool = False,
        complete: Callable[[Path], object] | None = None,
    ) -> Path:
        """Write everything to `folder`, which appears only when it is complete (see provable.artifacts)."""
        from provable.artifacts import write_artifacts

        return write_artifacts(self, Path(folder), original=original, force=force, complete=complete)

    def table(self) -> str:
        """The per-layer table as plain text."""
        from provable.table import layer_table

        return layer_table(self)
