"""Selection: which channels of a group stay.

greedy_elimination.py   backward elimination with block downdates of the inverse
forward_selection.py    forward selection by explained variance (pruning with compensation)
by_loss.py              greedy and volume sampling, judged by the loss after compensation
by_sensitivity.py       the largest sensitivities, or draws by them
by_score.py             the largest scores, all groups ranked together
by_similarity.py        one representative of every cluster, merged
evidence.py, finding.py what a selection may look at
"""
