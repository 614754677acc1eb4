"""KServe's Open Inference Protocol, version 2, over HTTP with JSON tensors.

Axes: `B` users, `K` items of an answer, `L` longest history.
"""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from elcrec.config import LimitsConfig
from elcrec.data.ids import normal_id
from elcrec.serving.engine import Answer, Question
from elcrec.serving.messages import DEFAULT_K, Refusal, decode, require_at_most
from elcrec.serving.recommender import Recommendation

NO_INTENT = -1

Datatype = Literal["BYTES", "FP32", "INT64", "BOOL"]

_INVALID = 422
_LONGEST_ID = 256

INPUTS: tuple[dict[str, Any], ...] = (
    {"name": "user_id", "datatype": "BYTES", "shape": [-1]},
    {"name": "history", "datatype": "BYTES", "shape": [-1, -1]},
    {"name": "k", "datatype": "INT64", "shape": [1]},
    {"name": "allow", "datatype": "BYTES", "shape": [-1]},
    {"name": "deny", "datatype": "BYTES", "shape": [-1]},
    {"name": "categories", "datatype": "BYTES", "shape": [-1]},
    {"name": "deny_categories", "datatype": "BYTES", "shape": [-1]},
)
"""`user_id` [B] or `history` [B, L] (oldest first, padded with "") or both; the rest is optional and applies to all
rows. Ids may also be INT64."""

OUTPUTS: tuple[dict[str, Any], ...] = (
    {"name": "item_id", "datatype": "BYTES", "shape": [-1, -1]},
    {"name": "score", "datatype": "FP32", "shape": [-1, -1]},
    {"name": "count", "datatype": "INT64", "shape": [-1]},
    {"name": "intent", "datatype": "INT64", "shape": [-1]},
    {"name": "source", "datatype": "BYTES", "shape": [-1]},
    {"name": "history_source", "datatype": "BYTES", "shape": [-1]},
    {"name": "store_available", "datatype": "BOOL", "shape": [-1]},
    {"name": "propensity", "datatype": "FP32", "shape": [-1, -1]},
    {"name": "answer_id", "datatype": "BYTES", "shape": [-1]},
    {"name": "arm", "datatype": "BYTES", "shape": [-1]},
    {"name": "title", "datatype": "BYTES", "shape": [-1, -1]},
    {"name": "category", "datatype": "BYTES", "shape": [-1, -1]},
)
"""`item_id`, `score` and `propensity` [B, K], of which the first `count` [B] are filled; `propensity` is 1 if the
model's rules do not explore; `intent` is -1 if there is none;
`store_available` is false if the online store was asked and did not answer, so the user may or may not be known;
`answer_id`: the id that an event may give as the answer that it follows; `arm`: the user's arm of the running test, ""
if none runs; `title` and `category` [B, K]: from the items file, "" if it has none."""

_FACTS = ("title", "category")
_FILTERS = ("allow", "deny", "categories", "deny_categories")


class Tensor(Struct, kw_only=True):
    """A tensor of a request; `data` is flat in row-major order, or nested by its shape, or after the JSON."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | UnsetType = UNSET
    parameters: dict[str, Any] = {}


class RequestedOutput(Struct, kw_only=True):
    """An output that the client asks for."""

    name: str
    parameters: dict[str, Any] = {}


class InferRequest(Struct, kw_only=True):
    """Body of POST /v2/models/{name}/infer."""

    inputs: list[Tensor]
    id: str | UnsetType = UNSET
    outputs: list[RequestedOutput] = []
    parameters: dict[str, Any] = {}


class OutputTensor(Struct, kw_only=True, omit_defaults=True):
    """A tensor of an answer, flat in row-major order; without `data`, its data follow the JSON."""

    name: str
    shape: list[int]
    datatype: Datatype
    data: list[Any] | UnsetType
    parameters: dict[str, Any] = {}


class InferResponse(Struct, kw_only=True, omit_defaults=True):
    """Answer of POST /v2/models/{name}/infer."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    id: str | UnsetType = UNSET


_decoder = msgspec.json.Decoder(InferRequest)


def parse_infer(head: bytes) -> InferRequest:
    """Parse the JSON of a request.

    Raises:
        Refusal: it is not JSON (400), or not a request (422).
    """
    return decode(head, _decoder)


def questions_of(request: InferRequest, limits: LimitsConfig, *, version: str | None = None) -> list[Question]:
    """Return one question per row; if the request names the `version` that serves, no other may answer.

    Raises:
        Refusal: the tensors do not match the metadata or the limits (422).
    """
    tensors = {tensor.name: tensor for tensor in request.inputs}
    _require(len(tensors) == len(request.inputs), "an input is named twice")
    known = {expected["name"]: expected for expected in INPUTS}
    for name, tensor in tensors.items():
        _require(name in known, f"no input is named {name!r}: known are {', '.join(known)}")
        wanted = known[name]["datatype"]
        ids_as_numbers = wanted == "BYTES" and tensor.datatype == "INT64"
        _require(tensor.datatype == wanted or ids_as_numbers, f"input {name!r} has datatype {wanted}")
    unknown = {output.name for output in request.outputs} - {output["name"] for output in OUTPUTS}
    _require(not unknown, f"no output is named {', '.join(sorted(unknown))}")
    return _questions(tensors, limits, in_test=version is None)


def binary_outputs(request: InferRequest) -> frozenset[str]:
    """Return the names of the outputs that the client wants as binary data."""
    default = request.parameters.get("binary_data_output") is True
    if not request.outputs:
        return frozenset(output["name"] for output in OUTPUTS) if default else frozenset()
    return frozenset(output.name for output in request.outputs if output.parameters.get("binary_data", default) is True)


def write_infer(request: InferRequest, answers: Sequence[Answer]) -> InferResponse:
    """Return the answers as the requested tensors, by default all."""
    rows, width = len(answers), max(len(answer.recommendation.item_ids) for answer in answers)
    found = [answer.recommendation for answer in answers]
    columns: dict[str, list[Any]] = {
        "item_id": [item for one in found for item in _filled(one.item_ids, width, "")],
        "score": [score for one in found for score in _filled(one.scores, width, 0.0)],
        "count": [len(one.item_ids) for one in found],
        "intent": [NO_INTENT if one.intent is None else one.intent for one in found],
        "source": ["popular" if one.fallback else "model" for one in found],
        "history_source": [answer.source for answer in answers],
        "store_available": [answer.store_available for answer in answers],
        "answer_id": [answer.answer_id for answer in answers],
        "arm": [answer.arm or "" for answer in answers],
        "propensity": [chance for one in found for chance in _filled(_propensities(one), width, 0.0)],
    }
    wanted = {output.name for output in request.outputs} or {output["name"] for output in OUTPUTS}
    if wanted.intersection(_FACTS):
        described = [answer.serving.recommender.describe(answer.recommendation.item_ids) for answer in answers]
        for name in _FACTS:
            rows_of = ([item.get(name) or "" for item in row] for row in described)
            columns[name] = [text for row in rows_of for text in _filled(row, width, "")]
    return InferResponse(
        model_name=answers[0].serving.name,
        model_version=answers[0].serving.version,
        id=request.id,
        outputs=[
            OutputTensor(
                name=output["name"],
                datatype=output["datatype"],
                shape=[rows, width] if len(output["shape"]) > 1 else [rows],
                data=columns[output["name"]],
            )
            for output in OUTPUTS
            if output["name"] in wanted
        ],
    )


def _propensities(found: Recommendation) -> list[float]:
    return [1.0] * len(found.item_ids) if found.propensities is None else found.propensities


def _questions(tensors: dict[str, Tensor], limits: LimitsConfig, *, in_test: bool) -> list[Question]:
    users = _ids(tensors["user_id"]) if "user_id" in tensors else None
    histories = _histories(tensors["history"], limits) if "history" in tensors else None
    rows = len(users if users is not None else histories or ())
    _require(rows > 0, "neither user_id nor history holds a row: send one of them")
    _require(histories is None or len(histories) == rows, "user_id and history have different numbers of rows")
    require_at_most(rows, limits.users, "the number of users")
    k = _count(tensors.get("k"), limits)
    allow, deny, categories, unwanted = (_filter(tensors, name, limits) for name in _FILTERS)
    return [
        Question(
            user_id=users[row] if users else None,
            history=histories[row] if histories else None,
            k=k,
            allow=allow,
            deny=deny or (),
            categories=categories,
            deny_categories=unwanted or (),
            in_test=in_test,
        )
        for row in range(rows)
    ]


def _filter(tensors: dict[str, Tensor], name: str, limits: LimitsConfig) -> frozenset[str] | None:
    if name not in tensors:
        return None
    ids = _ids(tensors[name])
    require_at_most(len(ids), limits.filter_ids, f"the length of {name}")
    return frozenset(ids)


def _count(tensor: Tensor | None, limits: LimitsConfig) -> int:
    if tensor is None:
        return DEFAULT_K
    values = _flat(tensor, 1)
    valid = len(values) == 1 and isinstance(values[0], int) and not isinstance(values[0], bool) and values[0] > 0
    _require(valid, "k must be one whole number from 1")
    require_at_most(values[0], limits.k, "k")
    return int(values[0])


def _ids(tensor: Tensor) -> list[str]:
    ids = _strings(tensor, 1)
    _require(all(ids), f"input {tensor.name!r} holds an empty id")
    return ids


def _histories(tensor: Tensor, limits: LimitsConfig) -> list[list[str]]:
    ids, (rows, length) = _strings(tensor, 2), tensor.shape
    # Rows may be empty, so the size of the request does not bound their number.
    require_at_most(rows, limits.users, "the number of users")
    require_at_most(length, limits.history, "the length of a history")
    return [[item for item in ids[row * length : (row + 1) * length] if item] for row in range(rows)]


def _strings(tensor: Tensor, dimensions: int) -> list[str]:
    """Return ids in their normal form; a number stands for the id with the same digits."""
    values = [str(value) if type(value) is int else value for value in _flat(tensor, dimensions)]
    valid = all(isinstance(value, str) and len(value) <= _LONGEST_ID for value in values)
    _require(valid, f"input {tensor.name!r} holds strings of at most {_LONGEST_ID} characters")
    return [normal_id(value) for value in values]


def _flat(tensor: Tensor, dimensions: int) -> list[Any]:
    """Return the values in row-major order, whether they were sent nested or flat."""
    # Some clients send a column with a trailing axis of one.
    if len(tensor.shape) == dimensions + 1 and tensor.shape[-1] == 1:
        tensor.shape = tensor.shape[:-1]
    shape = tensor.shape
    text = "[" + ", ".join(["n"] * dimensions) + "]"
    _require(len(shape) == dimensions and min(shape) >= 0, f"input {tensor.name!r} has a shape of {text}")
    _require(tensor.data is not UNSET, f"input {tensor.name!r} has no data")
    values: list[Any] = [] if tensor.data is UNSET else tensor.data
    while values and all(isinstance(value, list) for value in values):
        values = [inner for value in values for inner in value]
    size = shape[0] * (shape[1] if dimensions > 1 else 1)
    _require(len(values) == size, f"input {tensor.name!r} has {len(values)} values, its shape says {size}")
    return values


def _filled(values: list[Any], width: int, empty: object) -> list[Any]:
    return values + [empty] * (width - len(values))


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise Refusal(_INVALID, message)
