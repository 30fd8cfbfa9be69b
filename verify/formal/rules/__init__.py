"""The table of bound propagation rules: one entry per operation that can be bounded."""

from verify.formal.rules.activation import ACTIVATION_RULES
from verify.formal.rules.affine import AFFINE_RULES
from verify.formal.rules.max_pool import MAX_POOL
from verify.formal.rules.rule import Rule
from verify.formal.rules.structure import STRUCTURE_RULES

RULES: dict[str, Rule] = {rule.name: rule for rule in (*AFFINE_RULES, *ACTIVATION_RULES, *STRUCTURE_RULES, MAX_POOL)}

__all__ = ["RULES", "Rule"]
