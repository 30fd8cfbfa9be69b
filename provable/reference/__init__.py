"""Two small trained networks with their data: for the demo, for examples, and to try a new method on.

``load("mlp")``   perceptron 64-100-100-10 with ReLU, and its digits
``load("cnn")``   residual network with batch normalisation, and its digits
``mlp``, ``cnn``  the untrained modules, for ``provable compress provable.reference:mlp --weights ...``

Where the data comes from, and the licence: ``README.md`` in this folder. How the weights were made, to the last bit:
``scripts/train_reference.py``.
"""

from provable.reference.digits import Images, Reference, accuracy, images, load, weights_file
from provable.reference.networks import Block, cnn, mlp

__all__ = ["Block", "Images", "Reference", "accuracy", "cnn", "images", "load", "mlp", "weights_file"]
