"""Signed bundles, and the refusal of others."""

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from elcrec.adapters.signatures import require_signature, signer
from elcrec.adapters.store import open_store
from elcrec.errors import UserError
from elcrec.serving.bundle import BundleSource, describe_bundle, verify_bundle, write_bundle
from elcrec.serving.live import Live
from elcrec.serving.telemetry import Telemetry
from tests.support.push_inputs import bundle_of, make_inputs
from tests.support.serving import NAME, Installation

PASSWORD = "correct horse"
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def text_of(key: PrivateKey, password: str | None = None) -> str:
    how = NoEncryption() if password is None else BestAvailableEncryption(password.encode())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how).decode()


def public(key: PrivateKey, path: Path) -> Path:
    path.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


@pytest.fixture(scope="module")
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    return bundle_of(make_inputs(folder / "inputs"), folder / "bundle")


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "bundle")


@pytest.mark.parametrize("password", [None, PASSWORD])
@pytest.mark.parametrize("given", ["as text", "as a file"])
def test_a_signed_bundle_is_sound_and_its_signature_fits_wherever_it_is_copied(
    bundle: Path, tmp_path: Path, key: ec.EllipticCurvePrivateKey, given: str, password: str | None
) -> None:
    text, file = text_of(key, password), tmp_path / "key.pem"
    file.write_text(text)
    before = verify_bundle(bundle).digest
    signer(text if given == "as text" else str(file), password)(bundle)

    copied = shutil.copytree(bundle, tmp_path / "elsewhere")
    require_signature(public(key, tmp_path / "public.pem"))(copied)
    assert verify_bundle(copied).digest == before


def test_a_bundle_changed_after_signing_is_refused_even_with_a_new_manifest(
    tmp_path: Path, key: ec.EllipticCurvePrivateKey
) -> None:
    inputs, check = make_inputs(tmp_path / "inputs"), require_signature(public(key, tmp_path / "public.pem"))
    bundle = bundle_of(inputs, tmp_path / "bundle")
    signer(text_of(key), None)(bundle)
    signature = (bundle / "bundle.sig").read_bytes()
    check(bundle)

    (inputs.evaluation / "model_card.md").write_text("another")
    source = BundleSource(model=inputs.model, sequences=inputs.sequences, evaluation=inputs.evaluation)
    manifest = describe_bundle(source, name=NAME, feature_service="elcrec_v1", feature_schema="x")
    write_bundle(source, manifest, tmp_path / "forged")
    (tmp_path / "forged" / "bundle.sig").write_bytes(signature)
    verify_bundle(tmp_path / "forged")
    with pytest.raises(UserError, match="does not match this key and these files"):
        check(tmp_path / "forged")


def test_an_unsigned_bundle_another_key_and_a_broken_signature_are_refused(
    bundle: Path, tmp_path: Path, key: ec.EllipticCurvePrivateKey
) -> None:
    check = require_signature(public(key, tmp_path / "public.pem"))
    with pytest.raises(UserError, match=r"the bundle is not signed; serve\.verify_key is .*ELCREC_SIGNING_KEY"):
        check(bundle)
    signer(text_of(ec.generate_private_key(ec.SECP256R1())), None)(bundle)
    with pytest.raises(UserError, match="does not match this key and these files"):
        check(bundle)
    for broken in ("", "{", "{}", "[]"):
        (bundle / "bundle.sig").write_text(broken)
        with pytest.raises(UserError, match="does not match this key and these files"):
            check(bundle)


def test_a_key_that_cannot_be_used_is_one_line_that_does_not_hold_it(
    bundle: Path, tmp_path: Path, key: ec.EllipticCurvePrivateKey
) -> None:
    of_another_kind = text_of(rsa.generate_private_key(public_exponent=65537, key_size=2048))
    wrong = [(str(tmp_path / "absent"), None), ("-----BEGIN it is none", None), (of_another_kind, None)]
    wrong += [(text_of(key, PASSWORD), None), (text_of(key, PASSWORD), "wrong")]
    for given, password in wrong:
        with pytest.raises(UserError, match="the key for signing bundles cannot be used") as failed:
            signer(given, password)(bundle)
        assert "\n" not in str(failed.value)
        assert given not in str(failed.value)
    assert not (bundle / "bundle.sig").exists()
    (tmp_path / "private.pem").write_text(text_of(key))
    for path in (tmp_path / "absent", tmp_path / "private.pem"):
        with pytest.raises(UserError, match="not a public key"):
            require_signature(path)


def test_a_server_that_requires_signatures_keeps_the_signed_version(
    tmp_path: Path, key: ec.EllipticCurvePrivateKey, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ELCREC_SIGNING_KEY", text_of(key))
    store = open_store(tmp_path / "store")
    installation = Installation.make(tmp_path, sign=store.signer)
    check = require_signature(public(key, tmp_path / "public.pem"))
    live = Live(NAME, installation.registry, installation.store, Telemetry(), check=check)
    assert live.current.version == "1"
    assert text_of(key) not in repr(store)

    replace(installation, sign=None).push_another(seed=5)
    with caplog.at_level(logging.WARNING):
        live.refresh()
    assert live.current.version == "1"
    assert "version 2 is refused, version 1 stays" in (live.problem or "")
    assert Live(NAME, installation.registry, installation.store, Telemetry()).current.version == "2"
