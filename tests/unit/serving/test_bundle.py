import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from elcrec.artifacts import write_json
from elcrec.errors import UserError
from elcrec.serving.bundle import BundleSource, describe_bundle, verify_bundle, write_bundle
from tests.support.push_inputs import Inputs, make_inputs


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def source(inputs: Inputs) -> BundleSource:
    return BundleSource(model=inputs.model, sequences=inputs.sequences, evaluation=inputs.evaluation)


@pytest.fixture
def bundle(source: BundleSource, tmp_path: Path) -> Path:
    manifest = describe_bundle(source, name="m", feature_service="s_v1", feature_schema="d")
    write_bundle(source, manifest, tmp_path / "bundle")
    return tmp_path / "bundle"


def test_a_written_bundle_verifies_and_has_its_manifest(bundle: Path, source: BundleSource) -> None:
    manifest = verify_bundle(bundle)

    assert manifest == describe_bundle(source, name="m", feature_service="s_v1", feature_schema="d")
    assert (manifest.name, manifest.feature_service) == ("m", "s_v1")
    assert manifest.split["num_items"] == 15
    assert set(manifest.files) == {path.name for path in bundle.iterdir()} - {"manifest.json"}


def test_the_digest_leaves_out_the_time_and_the_run_and_nothing_else(
    source: BundleSource, bundle: Path, tmp_path: Path
) -> None:
    time.sleep(1.1)
    again, manifest = tmp_path / "again", describe_bundle(source, name="m", feature_service="s_v1", feature_schema="d")
    write_bundle(source, manifest, again, run={"id": "5a1b"})

    documents = [json.loads((folder / "manifest.json").read_text()) for folder in (bundle, again)]

    assert documents[0]["created"] != documents[1]["created"]
    assert ("run" in documents[0], documents[1]["run"]) == (False, {"id": "5a1b"})
    assert verify_bundle(again) == manifest
    assert documents[0]["digest"] == documents[1]["digest"]
    assert (
        describe_bundle(source, name="m", feature_service="s_v2", feature_schema="d").digest != documents[0]["digest"]
    )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: (b / "model.safetensors").write_bytes(b"0"), "changed: model.safetensors"),
        (lambda b: (b / "items.parquet").unlink(), "missing: items.parquet"),
        (lambda b: (b / "evil.pkl").write_bytes(b"0"), "not in the manifest: evil.pkl"),
        (lambda b: (b / "manifest.json").unlink(), "no such file"),
        (lambda b: (b / "manifest.json").write_text("{}"), "not a bundle's manifest"),
    ],
)
def test_a_damaged_bundle_is_refused_by_name(bundle: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(bundle)

    with pytest.raises(UserError, match=message):
        verify_bundle(bundle)


def test_a_manifest_that_was_edited_is_refused(bundle: Path) -> None:
    document = json.loads((bundle / "manifest.json").read_text())
    write_json(bundle / "manifest.json", document | {"feature_service": "other"})

    with pytest.raises(UserError, match="changed after it was written"):
        verify_bundle(bundle)


def test_a_model_of_other_sequences_is_refused(inputs: Inputs, tmp_path: Path) -> None:
    other = make_inputs(tmp_path, users=30)
    mixed = BundleSource(model=inputs.model, sequences=other.sequences, evaluation=other.evaluation)

    with pytest.raises(UserError, match="trained on other sequences"):
        describe_bundle(mixed, name="m", feature_service="s", feature_schema="d")
