"""Weight coresets: single weights leave, filter by filter and sign by sign, with a bound per filter.

sensitivity   how much of its class's sum a weight ever makes up
sipp          how many weights each class keeps: sampled, deterministic, or the better of the two
corenet       the same by the constants of data-dependent coresets
draw          sampling with replacement within the classes, and what is promised of it
sparsify      the pipeline from a model to a `Compression`
"""
