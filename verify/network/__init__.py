"""The verifier's graph: what a network is, how it is read and written, and what it means.

ONNX file ──────► read_onnx ──┐                       ┌─► evaluate      numpy float64, the reference semantics
ExportedProgram ► read_export ┼──► Network (graph.py) ┼─► module        the same graph as a torch module
structure.json ─► structure ──┘    nodes + parameters └─► write_onnx, structure   files that ship
"""
