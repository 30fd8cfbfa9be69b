"""Allocation: how many channels each group keeps, so that the whole network meets a budget.

marginal_loss.py   remove where the loss rises least per cost saved
global_error.py    one error of the layer theorem for all layers
common_price.py    one ranking of all slots of all groups
uniform.py         the same share of every group
widths.py          which widths a group may take: floor and rounding
budget.py          the budget itself; what it may count is in provable.budgets
"""
