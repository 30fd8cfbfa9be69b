"""Which channels stay: one sampling design per file, all with the same verb `draw(evidence, count, generator)`.

    from scores (c,)                          from a channel-level matrix (c, c)
      top_k             largest scores          volume               determinant of the kept block
      with_replacement  reweighted multinomial  derandomised_volume  its conditional expectations
      hybrid            certain part + sampled
      poisson           independent coins
      pivotal           exact size, no repeats

`DESIGNS` names them; a new design is one file and one line here, and the law tests cover it.
"""

from types import MappingProxyType

from provable.sampling.acceptance import AcceptedDraw, draw_until
from provable.sampling.channel_matrix import channel_matrix, column_norms, coordinates, residual_covariance
from provable.sampling.derandomised_volume import DerandomisedVolume
from provable.sampling.design import SamplingDesign, Selection
from provable.sampling.hybrid import Hybrid
from provable.sampling.inclusion import inclusion_probabilities
from provable.sampling.pivotal import Pivotal, dependent_rounding
from provable.sampling.poisson import Poisson
from provable.sampling.top_k import TopK
from provable.sampling.volume import Volume
from provable.sampling.with_replacement import WithReplacement, draws_for_distinct, expected_distinct

DESIGNS: MappingProxyType[str, SamplingDesign] = MappingProxyType(
    {
        "top_k": TopK(),
        "with_replacement": WithReplacement(),
        "hybrid": Hybrid(),
        "poisson": Poisson(),
        "pivotal": Pivotal(),
        "volume": Volume(),
        "derandomised_volume": DerandomisedVolume(),
    }
)

__all__ = [
    "DESIGNS",
    "AcceptedDraw",
    "DerandomisedVolume",
    "Hybrid",
    "Pivotal",
    "Poisson",
    "SamplingDesign",
    "Selection",
    "TopK",
    "Volume",
    "WithReplacement",
    "channel_matrix",
    "column_norms",
    "coordinates",
    "dependent_rounding",
    "draw_until",
    "draws_for_distinct",
    "expected_distinct",
    "inclusion_probabilities",
    "residual_covariance",
]
