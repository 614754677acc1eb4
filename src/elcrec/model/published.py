"""Checkpoints of the published code: its state dict becomes a `SequenceModel`.

The code is that of Liu et al. (ELCRec, NeurIPS 2024) and, with the same encoder under the same names, of Chen et al.
(ICLRec, WWW 2022). Its item table is indexed by the raw integer id: row 0 is padding, the last row a mask token.

Axes: `R` rows of the published item table, `V` items, `T` window, `D` hidden size, `K` intents.
"""

import logging
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from elcrec.config import TrainConfig
from elcrec.errors import UserError
from elcrec.model.elcrec import SequenceModel
from elcrec.model.intents import spherical

logger = logging.getLogger(__name__)

_ITEMS, _POSITIONS, _CENTERS = "item_embeddings.weight", "position_embeddings.weight", "cluster_centers"
_BLOCKS = "item_encoder.layer"
_PROJECTIONS = ("attention.query", "attention.key", "attention.value")
_OUR_NAMES = {
    "attention.dense": "attention.out",
    "attention.LayerNorm": "attention_norm",
    "intermediate.dense_1": "up",
    "intermediate.dense_2": "down",
    "intermediate.LayerNorm": "feed_forward_norm",
}
_PARTS = ("weight", "bias")
_CONTAINERS = ("state_dict", "model_state_dict", "model")
_PARALLEL_PREFIX = "module."
# A buffer that counts positions, and the loss function's own weights: neither takes part in a score.
_USELESS = re.compile(r"(?:.*\.)?position_ids|criterion\..*")
_NOT_ITEMS = 2
_LISTED = 6


@dataclass(frozen=True, kw_only=True)
class PublishedWeights:
    """A checkpoint of the published code, complete and of consistent shapes.

    Attributes:
        path: the file it came from.
        tensors: the state dict by its published names, float32.
    """

    path: Path
    tensors: dict[str, Tensor]

    @property
    def num_items(self) -> int:
        """Items of the table: raw ids run from 1 to this; padding and the mask token are none."""
        return len(self.tensors[_ITEMS]) - _NOT_ITEMS

    def to_model(self, rows_V: npt.NDArray[np.int64], num_heads: int) -> SequenceModel:
        """Return the model, ready to encode.

        Args:
            rows_V: the table's row of each of our items 1 to V.
            num_heads: attention heads, which no shape tells.

        Raises:
            UserError: the heads do not divide the hidden size, or the sizes are none of ours.
        """
        model = SequenceModel(self._config(num_heads), len(rows_V))
        model.load_state_dict(self._renamed(rows_V))
        return model.eval()

    @property
    def _objective(self) -> str:
        return "elcrec" if _CENTERS in self.tensors else "sasrec"

    def _config(self, num_heads: int) -> TrainConfig:
        window, hidden_size = self.tensors[_POSITIONS].shape
        sizes = {"window": window, "hidden_size": hidden_size, "num_blocks": _num_blocks(self.tensors)}
        document: dict[str, Any] = {"objective": self._objective, "encoder": sizes | {"num_heads": num_heads}}
        if _CENTERS in self.tensors:
            document["intents"] = {"num_intents": len(self.tensors[_CENTERS])}
        try:
            return msgspec.convert(document, TrainConfig)
        except msgspec.ValidationError as error:
            fix = "check --num-heads and the shapes of the tensors"
            raise UserError(f"not a model that this project can hold ({error})", where=self.path, fix=fix) from error

    def _renamed(self, rows_V: npt.NDArray[np.int64]) -> dict[str, Tensor]:
        """Return our state dict; the centres are put back on the unit sphere, where an optimiser's step leaves it."""
        tensors = self.tensors
        rows = torch.from_numpy(np.concatenate(([0], rows_V)))
        named = {"encoder.item_embedding.weight": tensors[_ITEMS][rows]}
        named["encoder.position_embedding.weight"] = tensors[_POSITIONS]
        named |= {f"encoder.norm.{part}": tensors[f"LayerNorm.{part}"] for part in _PARTS}
        for block in range(_num_blocks(tensors)):
            named |= _renamed_block(tensors, f"{_BLOCKS}.{block}", f"encoder.blocks.{block}")
        if _CENTERS in tensors:
            named["intents.centers_KD"] = spherical(tensors[_CENTERS])
        return named


def _renamed_block(tensors: Mapping[str, Tensor], theirs: str, ours: str) -> dict[str, Tensor]:
    named = {}
    for part in _PARTS:
        joined = [tensors[f"{theirs}.{name}.{part}"] for name in _PROJECTIONS]
        named[f"{ours}.attention.query_key_value.{part}"] = torch.cat(joined)
        for their_name, our_name in _OUR_NAMES.items():
            named[f"{ours}.{our_name}.{part}"] = tensors[f"{theirs}.{their_name}.{part}"]
    return named


def read_published(path: Path) -> PublishedWeights:
    """Read a checkpoint without executing anything in it.

    The file holds the state dict itself, or a dict with it under `state_dict`, `model_state_dict` or `model`; its
    names may begin with `module.`.

    Raises:
        UserError: the file is missing, damaged or no checkpoint, holds pickled code, or its tensors are not those of
            the published model: missing, unknown, misshapen or not finite.
    """
    state = _state_dict(_load(path), path)
    _require(state, path)
    return PublishedWeights(path=path, tensors={name: tensor.detach().float() for name, tensor in state.items()})


def _load(path: Path) -> Any:
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"not readable ({error.strerror})", where=path) from error
    try:
        with file, warnings.catch_warnings(action="ignore"):  # on formats that are refused anyway
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a file that is no checkpoint can break the reader at any point
        if "Unsupported global" in str(error):
            what, fix = "holds pickled code, which is never run", "save the model's state_dict() alone"
        else:
            what, fix = "not a checkpoint, or a damaged one", "give the file that torch.save wrote"
        raise UserError(what, where=path, fix=fix) from error


def _state_dict(document: Any, path: Path) -> dict[str, Tensor]:
    """Return the tensors of the model by name, without prefixes and what is known to be useless."""
    state = document
    for key in _CONTAINERS:
        if isinstance(document, Mapping) and isinstance(document.get(key), Mapping):
            state = document[key]
            _say_dropped([name for name in document if name != key])
            break
    if not isinstance(state, Mapping) or not all(isinstance(name, str) for name in state):
        fix = "save the model's state_dict()"
        raise UserError(f"holds no state dict but a {type(state).__name__}", where=path, fix=fix)
    named = {name.removeprefix(_PARALLEL_PREFIX): value for name, value in state.items()}
    useless = [name for name in named if _USELESS.fullmatch(name)]
    _say_dropped(useless)
    return {name: value for name, value in named.items() if name not in useless}


def _say_dropped(names: Iterable[object]) -> None:
    listed = ", ".join(map(str, names))
    if listed:
        logger.info("dropped, as ranking does not need it: %s", listed)


def _require(state: Mapping[str, Any], path: Path) -> None:
    """Check that the state dict is that of the published model, of whatever size."""
    fix = "only models of the published ELCRec and ICLRec code can be imported"
    table = state.get(_ITEMS)
    if not isinstance(table, Tensor) or table.ndim != 2 or len(table) <= _NOT_ITEMS:  # noqa: PLR2004 - a matrix
        raise UserError(f"no item table: {_ITEMS} is {_shape(table)}", where=path, fix=fix)
    hidden_size = table.shape[1]
    _require_inner_size(state, hidden_size, path)
    expected = _expected_shapes(state, hidden_size)
    faults = {
        "missing": [name for name in expected if name not in state],
        "unknown": [name for name in state if name not in expected],
        "wrong": [
            f"{name} is {_shape(state[name])}, not {list(shape)}"
            for name, shape in expected.items()
            if name in state and _shape(state[name]) != str(list(shape))
        ],
    }
    if any(faults.values()):
        what = "; ".join(f"{len(names)} {kind}: {_listed(names)}" for kind, names in faults.items() if names)
        details = "\n".join(f"{kind}: {name}" for kind, names in faults.items() for name in names)
        raise UserError(f"not the tensors of the published model ({what})", where=path, fix=fix, details=details)
    diverged = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if diverged:
        raise UserError(f"weights that are not finite in {_listed(diverged)}", where=path, fix="its training diverged")


def _require_inner_size(state: Mapping[str, Any], hidden_size: int, path: Path) -> None:
    for name, value in state.items():
        if name.endswith("dense_1.weight") and isinstance(value, Tensor) and value.ndim == 2:  # noqa: PLR2004 - a matrix
            inner_size = len(value)
            if inner_size != 4 * hidden_size:
                what = f"{name} has an inner size of {inner_size}, not 4 x {hidden_size}"
                raise UserError(what, where=path, fix="only an inner size of 4 x hidden can be imported")


def _expected_shapes(state: Mapping[str, Any], hidden_size: int) -> dict[str, tuple[int, ...]]:
    """Return the published names and shapes for the table, window, blocks and intents of this state dict."""
    shapes: dict[str, tuple[int, ...]] = {_ITEMS: (len(state[_ITEMS]), hidden_size)}
    shapes[_POSITIONS] = (_rows(state.get(_POSITIONS)), hidden_size)
    shapes |= _pair("LayerNorm", hidden_size)
    for block in range(_num_blocks(state)):
        shapes |= _block_shapes(f"{_BLOCKS}.{block}", hidden_size)
    if _CENTERS in state:
        shapes[_CENTERS] = (_rows(state[_CENTERS]), hidden_size)
    return shapes


def _block_shapes(block: str, hidden_size: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name in (*_PROJECTIONS, "attention.dense"):
        shapes |= _pair(f"{block}.{name}", hidden_size, hidden_size)
    shapes |= _pair(f"{block}.attention.LayerNorm", hidden_size)
    shapes |= _pair(f"{block}.intermediate.dense_1", 4 * hidden_size, hidden_size)
    shapes |= _pair(f"{block}.intermediate.dense_2", hidden_size, 4 * hidden_size)
    return shapes | _pair(f"{block}.intermediate.LayerNorm", hidden_size)


def _pair(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    """A layer's weight, and its bias, which is as long as the weight has rows."""
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _num_blocks(state: Iterable[str]) -> int:
    """Return how many blocks the names speak of; at least one, so that a lack of them is found."""
    found = {match[1] for name in state if (match := re.match(rf"{re.escape(_BLOCKS)}\.(\d+)\.", name))}
    return max(1, len(found))


def _rows(value: Any) -> int:
    return max(1, value.shape[0]) if isinstance(value, Tensor) and value.ndim else 1


def _shape(value: Any) -> str:
    """Return a weight's shape, or what it is instead of a dense tensor of real numbers."""
    if value is None:
        return "missing"
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    if not value.is_floating_point() or value.layout != torch.strided or value.is_meta:
        return f"a tensor of {value.dtype}, {value.layout} on {value.device}"
    return str(list(value.shape))


def _listed(names: list[str]) -> str:
    rest = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")
