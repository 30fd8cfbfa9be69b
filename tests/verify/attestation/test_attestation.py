"""Statements and signatures: round trips, changes that are noticed, and truth kept apart from signatures."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from verify.attestation.envelope import pae, payload_of, sign
from verify.attestation.statement import decode, encode
from verify.certificate.issue import issue_certificate
from verify.cli import main
from verify.errors import CertificateError
from verify.formal.deviation import verify_deviation
from verify.network.graph import Network, build
from verify.network.write_onnx import write_onnx
from verify.spec.box import Box


def network(factor: float) -> Network:
    parameters = {"w": np.array([[factor, 1.0]], np.float32)}
    return build("x", (2,), [("y", "linear", ("x",), {"weight": "w"}, {})], "y", parameters)


def write_keys(folder: Path, name: str, key: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey) -> None:
    form, encoding = serialization.PrivateFormat.PKCS8, serialization.Encoding.PEM
    (folder / f"{name}.pem").write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))
    public = key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pub").write_bytes(public)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("attested")
    paths = folder / "original.onnx", folder / "compact.onnx"
    for factor, path in zip((1.0, 1.125), paths, strict=True):
        write_onnx(network(factor), path)
    box = Box.from_floats([0.0, 0.0], [1.0, 1.0])
    found = verify_deviation(network(1.0), network(1.125), [box], timeout=5)
    issued = issue_certificate(folder / "c.json", found, boxes=[box], original=paths[0], compact=paths[1])
    assert isinstance(issued, tuple)
    write_keys(folder, "own", ed25519.Ed25519PrivateKey.generate())
    write_keys(folder, "other", ed25519.Ed25519PrivateKey.generate())
    write_keys(folder, "rsa", rsa.generate_private_key(65537, 2048))
    return folder


def attest(folder: Path, *words: str, compact: str = "compact.onnx") -> int:
    paths = ["--original", str(folder / "original.onnx"), "--compact", str(folder / compact)]
    return main(["attest", str(folder / "c.json"), *paths, *(str(folder / w) if "." in w else w for w in words)])


def test_a_signed_statement_is_verified_and_audited_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert attest(folder, "--out", "s.json", "--key", "own.pem", "--force") == 0
    assert "ACCEPT" in capsys.readouterr().out
    assert attest(folder, "--check", "s.json", "--public-key", "own.pub") == 0
    shown = capsys.readouterr().out
    assert "Signature: verified" in shown
    assert "Truth: auditing the files again gives the verdict of the statement: ACCEPT" in shown
    assert attest(folder, "--check", "s.json", "--public-key", "other.pub") == 1
    shown = capsys.readouterr().out
    assert "NOT VERIFIED" in shown
    assert "Truth" not in shown
    content = decode(payload_of((folder / "s.json").read_bytes(), folder / "own.pub"))
    assert [s["name"] for s in content["subject"]] == ["original.onnx", "compact.onnx"]
    assert 0.125 <= float(content["predicate"]["bound"]) <= 0.1251


def test_a_false_statement_with_a_good_signature_is_rejected(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert attest(folder, "--out", "plain.json", "--force") == 0
    content = json.loads((folder / "plain.json").read_text())
    content["predicate"]["bound"] = "1.00000e-9"
    (folder / "lie.json").write_bytes(sign(encode(content), folder / "own.pem"))
    capsys.readouterr()
    assert attest(folder, "--check", "lie.json", "--public-key", "own.pub") == 1
    shown = capsys.readouterr().out
    assert "Signature: verified" in shown
    assert "Truth: REJECT" in shown


def test_a_rejected_certificate_is_stated_as_such(folder: Path) -> None:
    assert attest(folder, "--out", "r.json", "--force", compact="original.onnx") == 1
    assert decode((folder / "r.json").read_bytes())["predicate"]["verdict"] == "reject"
    assert attest(folder, "--check", "r.json", compact="original.onnx") == 1
    assert attest(folder, "--check", "r.json") == 1


def test_an_unsigned_statement_is_not_taken_for_a_signed_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert attest(folder, "--out", "plain.json", "--force") == 0
    assert attest(folder, "--check", "plain.json") == 0
    assert "Signature: none" in capsys.readouterr().out
    assert attest(folder, "--check", "plain.json", "--public-key", "own.pub") == 1
    assert "not signed" in capsys.readouterr().out


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_changed_bit_is_verified(folder: Path, data: st.DataObject) -> None:
    payload = b'{"a": 1}'
    envelope = sign(payload, folder / "own.pem")
    assert payload_of(envelope, folder / "own.pub") == payload
    content = json.loads(envelope)
    part = data.draw(st.sampled_from(["payload", "sig"]))
    raw = bytearray(base64.b64decode(content["payload"] if part == "payload" else content["signatures"][0]["sig"]))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    changed = base64.b64encode(bytes(raw)).decode()
    if part == "payload":
        content["payload"] = changed
    else:
        content["signatures"][0]["sig"] = changed
    with pytest.raises(CertificateError, match="not by this key"):
        payload_of(json.dumps(content).encode(), folder / "own.pub")


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=st.binary(max_size=200))
def test_anything_else_is_refused(folder: Path, junk: bytes) -> None:
    with pytest.raises(CertificateError):
        payload_of(junk, folder / "own.pub")
    with pytest.raises(CertificateError):
        decode(junk)


def test_what_is_signed_is_the_encoding_of_the_protocol() -> None:
    assert pae(b"hello world", "http://example.com/HelloWorld") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_keys_of_another_kind_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("rsa.pem", "own.pub", "missing.pem"):
        assert attest(folder, "--out", "x.json", "--key", name) == 3
        assert not (folder / "x.json").exists()
    assert attest(folder, "--public-key", "own.pub", "--out", "x.json") == 3
    assert attest(folder) == 3
    assert "--out" in capsys.readouterr().err
