"""Signing a statement: a DSSE envelope with Ed25519.

    signature over  "DSSEv1" SP len(type) SP type SP len(payload) SP payload        (PAE)

Keys are PEM files (PKCS 8 without a password, SubjectPublicKeyInfo); they are read and never written. Needs the package
`cryptography` (extra "sign"). Not claimed: anything about who holds a key, or about the truth of what was signed.
Reference: secure-systems-lab/dsse, protocol v1.
"""

import base64
import binascii
import json
from pathlib import Path
from typing import Any

from verify.audit.files import read_file, read_json
from verify.errors import CertificateError

PAYLOAD_TYPE = "application/vnd.in-toto+json"
LARGEST = 2**24


def pae(payload: bytes, kind: str = PAYLOAD_TYPE) -> bytes:
    """The pre-authentication encoding: what a signature covers."""
    name = kind.encode()
    return b"DSSEv1 %d %s %d %s" % (len(name), name, len(payload), payload)


def sign(payload: bytes, key: Path) -> bytes:
    """The envelope of a payload, signed with the private key in a PEM file.

    Raises:
        CertificateError: the key cannot be read, is no Ed25519 key, or `cryptography` is missing.
    """
    signature = _private_key(key).sign(pae(payload))
    envelope = {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": "", "sig": base64.b64encode(signature).decode()}],
    }
    return (json.dumps(envelope, indent=1) + "\n").encode()


def payload_of(envelope: bytes, key: Path | None) -> bytes:
    """The payload of an envelope; with a public key only if that key signed it.

    Raises:
        CertificateError: it is no envelope of a statement, or no signature in it is by this key.
    """
    payload, signatures = _parse(envelope)
    if key is not None and not any(_signed(_public_key(key), s, payload) for s in signatures):
        raise CertificateError("the signature is not by this key, or the statement was changed")
    return payload


def _parse(envelope: bytes) -> tuple[bytes, list[bytes]]:
    try:
        content = read_json(envelope)
        if set(content) != {"payloadType", "payload", "signatures"} or content["payloadType"] != PAYLOAD_TYPE:
            raise ValueError("other keys, or another type of payload")
        signatures = [_bytes(entry["sig"]) for entry in content["signatures"] if set(entry) <= {"keyid", "sig"}]
        return _bytes(content["payload"]), signatures
    except Exception as error:
        raise CertificateError(f"no DSSE envelope of a statement: {error}") from None


def _bytes(text: Any) -> bytes:
    try:
        decoded = base64.b64decode(str(text).encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError(f"not base64: {error}") from None
    if base64.b64encode(decoded).decode() != text:
        raise ValueError("base64 in another form than the usual one")
    return decoded


def _signed(key: Any, signature: bytes, payload: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, pae(payload))
    except InvalidSignature:
        return False
    return True


def _private_key(path: Path) -> Any:
    serialization, kinds = _cryptography()
    try:
        key = serialization.load_pem_private_key(read_file(path, LARGEST), password=None)
    except Exception as error:
        raise CertificateError(f"{path}: no private key in PEM form without a password: {error}") from None
    if not isinstance(key, kinds.Ed25519PrivateKey):
        raise CertificateError(f"{path}: a {type(key).__name__}, expected an Ed25519 key")
    return key


def _public_key(path: Path) -> Any:
    serialization, kinds = _cryptography()
    try:
        key = serialization.load_pem_public_key(read_file(path, LARGEST))
    except Exception as error:
        raise CertificateError(f"{path}: no public key in PEM form: {error}") from None
    if not isinstance(key, kinds.Ed25519PublicKey):
        raise CertificateError(f"{path}: a {type(key).__name__}, expected an Ed25519 key")
    return key


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise CertificateError(
            "signatures need the package cryptography: pip install 'provable-pruning[sign]'"
        ) from None
    return serialization, ed25519
