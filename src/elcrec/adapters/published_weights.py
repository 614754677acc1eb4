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
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from elcrec.config import TrainConfig
from elcrec.errors import UserError
from elcrec.model.intents import spherical
from elcrec.model.sequence_model import SequenceModel

logger = logging.getLogger(__name__)

_ITEMS, _POSITIONS, _CENTERS = "item_embeddings.weight", "position_embeddings.weight", "cluster_centers"
_OUR_TABLES = {
    _ITEMS: "encoder.item_embedding.weight",
    _POSITIONS: "encoder.position_embedding.weight",
    _CENTERS: "intents.centers_KD",
}
_BLOCKS = "item_encoder.layer"
_BLOCK_LAYERS = {
    "attention.query": ("mixer.query_key_value", (1, 1)),
    "attention.key": ("mixer.query_key_value", (1, 1)),
    "attention.value": ("mixer.query_key_value", (1, 1)),
    "attention.dense": ("mixer.out", (1, 1)),
    "attention.LayerNorm": ("mixer_norm", (1,)),
    "intermediate.dense_1": ("up", (4, 1)),
    "intermediate.dense_2": ("down", (1, 4)),
    "intermediate.LayerNorm": ("feed_forward_norm", (1,)),
}
"""The layers of a block: our name, and the shape of the weight in hidden sizes. Layers with the same name are
joined."""
_CONTAINERS = ("state_dict", "model_state_dict", "model")
_PARALLEL_PREFIX = "module."
# A buffer of positions, and weights of the loss function: neither affects a score.
_USELESS = re.compile(r"(?:.*\.)?position_ids|criterion\..*")
_NOT_ITEMS = 2
_LISTED = 6


class _Known(NamedTuple):
    """The known facts on a published tensor: its name in `SequenceModel`, and its shape."""

    our_name: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class PublishedWeights:
    """A checkpoint of the published code, complete and with consistent shapes.

    Attributes:
        path: the file it came from.
        tensors: the state dict by its published names, float32.
    """

    path: Path
    tensors: dict[str, Tensor]

    @property
    def num_items(self) -> int:
        """Number of items in the table, without padding and mask token: raw ids run from 1 to this."""
        return len(self.tensors[_ITEMS]) - _NOT_ITEMS

    def config(self, num_heads: int) -> TrainConfig:
        """Return the part of the training's configuration that the shapes determine.

        Args:
            num_heads: number of attention heads, which no shape determines.

        Raises:
            UserError: the heads do not divide the hidden size, or our model does not support the sizes.
        """
        window, hidden_size = self.tensors[_POSITIONS].shape
        sizes = {"window": window, "hidden_size": hidden_size, "num_blocks": _num_blocks(self.tensors)}
        document: dict[str, Any] = {"objective": "sasrec", "encoder": sizes | {"num_heads": num_heads}}
        if _CENTERS in self.tensors:
            document |= {"objective": "elcrec", "intents": {"num_intents": len(self.tensors[_CENTERS])}}
        try:
            return msgspec.convert(document, TrainConfig)
        except msgspec.ValidationError as error:
            fix = "check --num-heads and the shapes of the tensors"
            raise UserError(f"not a model that this project supports ({error})", where=self.path, fix=fix) from error

    def to_model(self, rows_V: npt.NDArray[np.int64], num_heads: int) -> SequenceModel:
        """Return the model, ready to encode.

        Args:
            rows_V: the table's row of each of our items 1 to V.
            num_heads: as for `config`, with the same errors.
        """
        parts: dict[str, list[Tensor]] = {}
        for name, known in _known_tensors(self.tensors).items():
            parts.setdefault(known.our_name, []).append(self.tensors[name])
        state = {name: torch.cat(tensors) for name, tensors in parts.items()}
        rows = torch.from_numpy(np.concatenate(([0], rows_V)))
        state[_OUR_TABLES[_ITEMS]] = self.tensors[_ITEMS][rows]
        if _CENTERS in self.tensors:
            # The optimiser's last step moved them off the unit sphere.
            state[_OUR_TABLES[_CENTERS]] = spherical(self.tensors[_CENTERS])
        model = SequenceModel(self.config(num_heads).model, len(rows_V))
        model.load_state_dict(state)
        return model.eval()


def read_published(path: Path) -> PublishedWeights:
    """Read a checkpoint without executing any code in it.

    The file holds the state dict itself, or a dict with it under `state_dict`, `model_state_dict` or `model`; its
    names may begin with `module.`.

    Raises:
        UserError: the file is missing, damaged or not a checkpoint, holds pickled code, or its tensors do not match the
            published model: missing, unknown, of a wrong shape or not finite.
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
        with file, warnings.catch_warnings(action="ignore"):  # warnings about formats that are refused anyway
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a file that is not a checkpoint can make the reader fail at any point
        if "Unsupported global" in str(error):
            what, fix = "holds pickled code, which is never run", "save only the model's state_dict()"
        else:
            what, fix = "not a checkpoint, or a damaged one", "give a file written by torch.save"
        raise UserError(what, where=path, fix=fix) from error


def _state_dict(document: Any, path: Path) -> dict[str, Tensor]:
    """Return the tensors of the model by name, without prefixes and without tensors known to be unnecessary."""
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
        logger.info("dropped, because ranking does not need them: %s", listed)


def _require(state: Mapping[str, Any], path: Path) -> None:
    """Check that the state dict is that of the published model, of any size."""
    fix = "only models of the published ELCRec and ICLRec code can be imported"
    table = state.get(_ITEMS)
    if not isinstance(table, Tensor) or table.ndim != 2 or len(table) <= _NOT_ITEMS:  # noqa: PLR2004 - a matrix
        raise UserError(f"no item table: {_ITEMS} is {_shape(table)}", where=path, fix=fix)
    _require_inner_size(state, table.shape[1], path)
    expected = {name: known.shape for name, known in _known_tensors(state).items()}
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


def _known_tensors(state: Mapping[str, Any]) -> dict[str, _Known]:
    """Return by name what a state dict must hold for this hidden size, window, number of blocks and intents."""
    hidden_size = state[_ITEMS].shape[1]
    tables = [name for name in _OUR_TABLES if name != _CENTERS or name in state]
    known = {name: _Known(_OUR_TABLES[name], (_rows(state.get(name)), hidden_size)) for name in tables}
    layers: dict[str, tuple[str, tuple[int, ...]]] = {"LayerNorm": ("encoder.norm", (1,))}
    for block in range(_num_blocks(state)):
        for theirs, (ours, factors) in _BLOCK_LAYERS.items():
            layers[f"{_BLOCKS}.{block}.{theirs}"] = f"encoder.blocks.{block}.{ours}", factors
    for theirs, (ours, factors) in layers.items():
        shape = tuple(factor * hidden_size for factor in factors)
        known[f"{theirs}.weight"] = _Known(f"{ours}.weight", shape)
        known[f"{theirs}.bias"] = _Known(f"{ours}.bias", shape[:1])
    return known


def _num_blocks(state: Iterable[str]) -> int:
    """Return the number of blocks in the names; at least one, so that missing blocks are noticed."""
    found = {match[1] for name in state if (match := re.match(rf"{re.escape(_BLOCKS)}\.(\d+)\.", name))}
    return max(1, len(found))


def _rows(value: Any) -> int:
    return max(1, value.shape[0]) if isinstance(value, Tensor) and value.ndim else 1


def _shape(value: Any) -> str:
    """Return a weight's shape, or a description if it is not a dense tensor of real numbers."""
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
