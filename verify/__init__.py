"""verify judges: how far may a compact network be from its original?

    two networks as files + a domain
        │
        ├─► empirical     attack, replay                 can only refute
        ├─► statistical   fresh data                     true with a stated confidence
        └─► formal        every input in the box         true, no probability
                │
            certificate ─► audit (exact, independent, tiny) ─► ACCEPT or not

Nothing here depends on how the compact network was made. Names are imported on first use, so that
``import verify`` stays light and the auditor never loads the prover; it is the subpackage `verify.audit`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from verify.certificate.emit import emit_certificate
    from verify.empirical.attack import Attack, attack_deviation
    from verify.errors import InputError, VerifyError
    from verify.formal.deviation import DeviationResult, verify_deviation
    from verify.network.evaluate import evaluate
    from verify.network.graph import Network, Node
    from verify.network.load import load_module, load_network
    from verify.network.module import NetworkModule
    from verify.network.read_export import read_export, read_pt2, trace
    from verify.network.read_onnx import read_onnx
    from verify.network.structure import read_structure, write_structure
    from verify.network.write_onnx import write_onnx
    from verify.spec.box import Box
    from verify.spec.deviation import Verdict
    from verify.spec.vnnlib import read_vnnlib
    from verify.statistical.certificate import StatisticalCertificate, certify_sample

_HOME = {
    "emit_certificate": "verify.certificate.emit",
    "Attack": "verify.empirical.attack",
    "attack_deviation": "verify.empirical.attack",
    "InputError": "verify.errors",
    "VerifyError": "verify.errors",
    "DeviationResult": "verify.formal.deviation",
    "verify_deviation": "verify.formal.deviation",
    "evaluate": "verify.network.evaluate",
    "Network": "verify.network.graph",
    "Node": "verify.network.graph",
    "load_module": "verify.network.load",
    "load_network": "verify.network.load",
    "NetworkModule": "verify.network.module",
    "read_export": "verify.network.read_export",
    "read_pt2": "verify.network.read_export",
    "trace": "verify.network.read_export",
    "read_onnx": "verify.network.read_onnx",
    "read_structure": "verify.network.structure",
    "write_structure": "verify.network.structure",
    "write_onnx": "verify.network.write_onnx",
    "Box": "verify.spec.box",
    "Verdict": "verify.spec.deviation",
    "read_vnnlib": "verify.spec.vnnlib",
    "StatisticalCertificate": "verify.statistical.certificate",
    "certify_sample": "verify.statistical.certificate",
}

__all__ = [
    "Attack", "Box", "DeviationResult", "InputError", "Network", "NetworkModule", "Node",
    "StatisticalCertificate", "Verdict", "VerifyError", "attack_deviation", "certify_sample",
    "emit_certificate", "evaluate", "load_module", "load_network", "read_export", "read_onnx", "read_pt2",
    "read_structure", "read_vnnlib", "trace", "verify_deviation", "write_onnx", "write_structure",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'verify' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
