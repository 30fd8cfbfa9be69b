"""Compensation: the kept channels take over the work of the removed ones, without training.

moments.py         sums that describe the data to least squares
patches.py         the unfolded input of a consumer
target.py          what a consumer should give: stream values, affine ops behind it
collect.py         one pass over a consumer's cached inputs and targets
least_squares.py   closed form with intercept, exact loss
ridge.py           amount of ridge by held-out images
refit.py           a fit written back into the network's parameters
consumers.py       from channel groups to coordinates
sequential.py      layer by layer on the already compressed network
row_offsets.py     moments of convolution patches from row offsets, float64
segment.py         a part of the network between cut values
refinement.py      gradient steps on a segment, after least squares
network_refinement.py  gradient steps on the whole compact network, after least squares
minibatches.py     which images they see
adam.py            their rule
steps.py           what a finished site leaves, for runs that continue
near_ridge.py      least squares that keeps weights close where that costs little
constrained.py     least squares under constraints on the weights, as a convex program
minimax.py         smallest largest deviation on calibration, as linear programs
batch_norm.py      batch-norm statistics measured again
strategies.py      the table of all compensations by name
"""
