"""Selection: which channels of a group stay, judged by the loss after compensation.

greedy_elimination.py   backward elimination with block downdates of the inverse
"""
