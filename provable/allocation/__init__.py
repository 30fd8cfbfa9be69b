"""Allocation: how many channels each group keeps, so that the whole network meets a budget.

marginal_loss.py   remove where the loss rises least per cost saved
"""
