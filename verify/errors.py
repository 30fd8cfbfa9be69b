"""Why the package refused to work.

    VerifyError
    └── InputError                the caller's input is at fault (exit code 3)
        ├── ModelError            a network file or module cannot be read
        │   └── UnsupportedOperation   it uses an op outside the table
        ├── DataError             an array is missing, misshapen, empty or not finite
        ├── SpecificationError    a domain or a property is ill-formed
        ├── MismatchError         two things that must fit together do not
        └── CertificateError      a certificate file cannot be read

Verdicts (PROVED, REFUTED, UNKNOWN) are values, never exceptions.
"""

from collections.abc import Iterable


class VerifyError(Exception):
    """Root of every error this package raises on purpose."""


class InputError(VerifyError):
    """The input is at fault: the message says what, where, and what to do."""


class ModelError(InputError):
    """A network cannot be read, or breaks the rules of the graph."""


class UnsupportedOperation(ModelError):
    """A network uses an op that the graph does not know."""

    def __init__(self, operation: str, node: str, supported: Iterable[str], reason: str = "") -> None:
        self.operation = operation
        self.node = node
        self.supported = tuple(sorted(supported))
        why = f" ({reason})" if reason else ""
        super().__init__(
            f"unsupported op {operation!r} at node {node!r}{why}; supported ops: {', '.join(self.supported)}"
        )


class DataError(InputError):
    """An array is missing, misshapen, empty or not finite."""


class SpecificationError(InputError):
    """A domain or a property is ill-formed."""


class MismatchError(InputError):
    """Two networks, or a network and a domain, do not fit together."""


class CertificateError(InputError):
    """A certificate file cannot be read."""
