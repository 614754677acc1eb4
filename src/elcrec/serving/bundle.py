"""A bundle: everything that serving needs of one model, in one folder that can be checked.

`manifest.json` holds the sha256 of every other file, and the provenance of the model. The digest covers the whole
manifest except the time of creation and the run that wrote it, so the same inputs give the same digest on every
machine.
"""

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from elcrec.artifacts import SCHEMA_VERSION, atomic_dir, read_document, read_json, sha256_of, write_json
from elcrec.errors import UserError
from elcrec.ranking.files import FACTS, NEW_ITEMS, RULES, SEARCH

MANIFEST = "manifest.json"
SIGNATURE = "bundle.sig"
"""File of the signature; it is not covered by the digest."""
_REPAIR = "restore the bundle from the registry or push the model again"


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The identity and the contents of a bundle."""

    name: str
    """Name of the registered model."""
    feature_service: str
    """Versioned Feast service from which the model reads."""
    sequences_md5: str
    """Checksum of the sequences.parquet that the model was evaluated on."""
    split: dict[str, Any]
    """Content of split.json of those sequences: kind of split, sizes, cuts."""
    files: dict[str, str]
    """sha256 by file name, of every file except the manifest."""
    feature_schema: str | None = None
    """Digest of the service's schema; `None` in older bundles, whose service is not compared."""
    schema_version: int = SCHEMA_VERSION

    @property
    def digest(self) -> str:
        """The bundle's identity, 64 hex digits."""
        return hashlib.sha256(msgspec.json.encode(self.document(), order="sorted")).hexdigest()

    def document(self) -> dict[str, Any]:
        """Return the fields that the bundle has; a field that an old bundle lacks does not enter its digest."""
        fields: dict[str, Any] = msgspec.to_builtins(self)
        return {name: value for name, value in fields.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class BundleSource:
    """The stages' folders that a bundle is made from."""

    model: Path
    sequences: Path
    evaluation: Path

    def files(self) -> dict[str, Path]:
        """The source of each file by its name inside the bundle; optional files only if they exist."""
        optional = {name: self.evaluation / name for name in (RULES, FACTS, NEW_ITEMS, SEARCH)}
        return {
            "model.safetensors": self.model / "model.safetensors",
            "config.json": self.model / "config.json",
            "items.parquet": self.sequences / "items.parquet",
            "intents.json": self.evaluation / "intents.json",
            "metrics.json": self.evaluation / "metrics.json",
            "model_card.md": self.evaluation / "model_card.md",
            **{name: path for name, path in optional.items() if path.is_file()},
        }


def describe_bundle(source: BundleSource, *, name: str, feature_service: str, feature_schema: str) -> Manifest:
    """Return the manifest that a bundle of `source` would have, without writing it.

    Raises:
        UserError: a file is missing, or the model was trained on other sequences.
    """
    files = source.files()
    for path in files.values():
        if not path.is_file():
            raise UserError("no such file", where=path, fix="run the stage that writes it first")
    split = read_json(source.sequences / "split.json")
    if read_json(files["config.json"]).get("sequences_md5") != split["md5"]:
        what = f"trained on other sequences, not those of {source.sequences}"
        raise UserError(what, where=source.model, fix="run the train and evaluate stages again")
    return Manifest(
        name=name,
        feature_service=feature_service,
        feature_schema=feature_schema,
        sequences_md5=split["md5"],
        split=split,
        files={file: sha256_of(path) for file, path in files.items()},
    )


def write_bundle(source: BundleSource, manifest: Manifest, out: Path, *, run: Mapping[str, str] | None = None) -> None:
    """Write the bundle folder `out`, whole or not at all.

    Args:
        source: the folders of the stages.
        manifest: the description of them.
        out: the folder to write.
        run: the run of a pipeline that writes it; like the time, it does not enter the digest.
    """
    with atomic_dir(out) as scratch:
        for name, path in source.files().items():
            shutil.copyfile(path, scratch / name)
        created = datetime.now(UTC).isoformat(timespec="seconds")
        document = {**manifest.document(), "digest": manifest.digest, "created": created}
        if run:
            document["run"] = dict(run)
        write_json(scratch / MANIFEST, document)


def read_manifest(folder: Path) -> Manifest:
    """Read a bundle's manifest.

    Raises:
        UserError: there is none, it has another schema, or its digest does not match its content.
    """
    path = folder / MANIFEST
    manifest = read_document(path, Manifest, name="a bundle's manifest", fix=_REPAIR)
    if manifest.digest != read_json(path).get("digest"):
        raise UserError("the manifest was changed after it was written", where=path, fix=_REPAIR)
    return manifest


def verify_bundle(folder: Path) -> Manifest:
    """Check every file of a bundle against its manifest, and return the manifest.

    Raises:
        UserError: a file is changed, missing or extra, or the manifest is invalid.
    """
    manifest = read_manifest(folder)
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    _refuse(folder, "missing", set(manifest.files) - present)
    _refuse(folder, "not in the manifest", present - set(manifest.files) - {MANIFEST, SIGNATURE})
    changed = {name for name, digest in manifest.files.items() if sha256_of(folder / name) != digest}
    _refuse(folder, "changed", changed)
    return manifest


def _refuse(folder: Path, what: str, names: set[str]) -> None:
    if names:
        raise UserError(f"{what}: {', '.join(sorted(names))}", where=folder, fix=_REPAIR)
