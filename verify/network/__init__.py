"""The verifier's graph: what a network is, how it is read and written, and what it means.

ONNX file ─────► read_onnx ───┐                       ┌─► evaluate      numpy float64, the reference semantics
module, .pt2 ──► read_export ─┼──► Network (graph.py) ┼─► module        the same graph as a torch module
structure.json ► structure ───┘    nodes + parameters └─► write_onnx, structure   files that ship

load: a path or a name -> one of the readers. lowering: what the first two have in common (a run on a batch of
one, written down for one sample); onnx_operators and aten_operators: one short function per operator.
"""
