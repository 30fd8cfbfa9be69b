"""How much each channel matters to the layer that reads it: one published score per file.

relative_importance   largest share of any same-sign sum of the consumer (provable filter pruning)
record                its maximum over the calibration images, and the importance distribution
ridge_leverage        how well the other channels can stand in for one (column subset selection)
gates, taylor         first- and second-order change of the loss, or of the output, when a channel's gate closes
similarity            expected squared distance of two channels, and the clustering it gives
functionality         what input maximises a filter, and how much the filter contributes
magnitude             the size of the filters themselves, and chance: the baselines
"""

from provable.sensitivity.record import Sensitivity, over_consumers
from provable.sensitivity.relative_importance import relative_importance, relative_importance_per_image
from provable.sensitivity.ridge_leverage import effective_dimension, ridge_for_dimension, ridge_leverage_scores

__all__ = [
    "Sensitivity",
    "effective_dimension",
    "over_consumers",
    "relative_importance",
    "relative_importance_per_image",
    "ridge_for_dimension",
    "ridge_leverage_scores",
]
