"""The table of bound propagation rules: one entry per operation that can be bounded."""

from verify.formal.rules.affine import AFFINE_RULES
from verify.formal.rules.piecewise import PIECEWISE_RULES
from verify.formal.rules.rule import Rule
from verify.formal.rules.smooth import SMOOTH_RULES
from verify.formal.rules.structure import STRUCTURE_RULES

RULES: dict[str, Rule] = {
    rule.name: rule for rule in (*AFFINE_RULES, *PIECEWISE_RULES, *STRUCTURE_RULES, *SMOOTH_RULES)
}

__all__ = ["RULES", "Rule"]
