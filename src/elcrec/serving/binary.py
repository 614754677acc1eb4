"""The binary tensor extension of the Open Inference Protocol, and compressed bodies.

A body is JSON, whose size in bytes a header states, followed by the data of its binary tensors in order. Numbers are
little-endian. Each element of BYTES is preceded by its length, an unsigned number of four bytes.
"""

import zlib
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from elcrec.serving.inference import InferResponse, OutputTensor, Tensor
from elcrec.serving.messages import Refusal

HEADER = "inference-header-content-length"
SIZE = "binary_data_size"

_NOT_READABLE, _TOO_LARGE, _UNSUPPORTED = 400, 413, 415
_LENGTH_BYTES = 4
_NUMBERS = {"INT64": "<i8", "FP32": "<f4", "BOOL": "?"}
_GZIP, _ZLIB = zlib.MAX_WBITS | 16, zlib.MAX_WBITS
_WORTH_COMPRESSING = 1024
_FAST = 1


def decompress(body: bytes, encoding: str, most: int) -> bytes:
    """Return the decompressed body, of at most `most` bytes.

    Raises:
        Refusal: the encoding is unknown (415), the body is not valid in it (400), or it has more than `most` bytes
            (413).
    """
    if encoding in {"", "identity"}:
        return body
    if encoding not in {"gzip", "deflate"}:
        raise Refusal(_UNSUPPORTED, "content-encoding is neither gzip nor deflate")
    machine = zlib.decompressobj(_GZIP if encoding == "gzip" else _ZLIB)
    try:
        plain = machine.decompress(body, most + 1)
    except zlib.error as error:
        raise Refusal(_NOT_READABLE, f"the body is not in {encoding}") from error
    if len(plain) > most:
        raise Refusal(_TOO_LARGE, f"the body has more than {most} bytes")
    if not machine.eof:
        raise Refusal(_NOT_READABLE, f"the body ends before its {encoding} does")
    return plain


def compress(content: bytes, accepted: str) -> tuple[bytes, dict[str, str]]:
    """Compress an answer as the client accepts it, and return it with its headers; a short answer stays as it is."""
    names = {part.partition(";")[0].strip().lower() for part in accepted.split(",")}
    if "gzip" not in names or len(content) < _WORTH_COMPRESSING:
        return content, {}
    machine = zlib.compressobj(_FAST, wbits=_GZIP)
    return machine.compress(content) + machine.flush(), {"content-encoding": "gzip"}


def split(body: bytes, header: str | None) -> tuple[bytes, bytes]:
    """Return the JSON of a body and the data after it.

    Raises:
        Refusal: the header is not a number of bytes within the body (400).
    """
    if header is None:
        return body, b""
    if not (header.isascii() and header.isdigit() and int(header) <= len(body)):
        raise Refusal(_NOT_READABLE, f"{HEADER} is not a number of bytes within the body")
    return body[: int(header)], body[int(header) :]


def fill(tensors: Sequence[Tensor], data: bytes) -> None:
    """Fill each binary tensor with its part of `data`.

    Raises:
        Refusal: a size is invalid, the sizes do not add up to `data`, or a part does not fit its datatype (400).
    """
    start = 0
    for tensor in tensors:
        size = tensor.parameters.get(SIZE)
        if size is None:
            continue
        if type(size) is not int or not 0 <= size <= len(data) - start:
            raise Refusal(_NOT_READABLE, f"{SIZE} of input {tensor.name!r} is not a size of data after the JSON")
        tensor.data = _read(tensor, data[start : start + size])
        start += size
    if start != len(data):
        raise Refusal(_NOT_READABLE, f"{len(data) - start} bytes after the JSON belong to no input")


def pack(response: InferResponse, binary: frozenset[str]) -> tuple[bytes, int | None]:
    """Return the body of an answer and, where a tensor in it is binary, the size of its JSON.

    Args:
        response: the answer with all its values.
        binary: names of the tensors to send as binary data.
    """
    parts = []
    for tensor in response.outputs:
        if tensor.name in binary:
            parts.append(_written(tensor))
            tensor.data, tensor.parameters = msgspec.UNSET, {SIZE: len(parts[-1])}
    head = msgspec.json.encode(response)
    return b"".join([head, *parts]), len(head) if parts else None


def _read(tensor: Tensor, part: bytes) -> list[Any]:
    if tensor.datatype in _NUMBERS:
        kind = np.dtype(_NUMBERS[tensor.datatype])
        if len(part) % kind.itemsize:
            raise Refusal(_NOT_READABLE, f"input {tensor.name!r} ends in the middle of a value")
        values: list[Any] = np.frombuffer(part, kind).tolist()
        return values
    return _strings(part, tensor.name)


def _strings(part: bytes, name: str) -> list[str]:
    values, start = [], 0
    while start < len(part):
        begin = start + _LENGTH_BYTES
        start = begin + int.from_bytes(part[start:begin], "little")
        if begin > len(part) or start > len(part):
            raise Refusal(_NOT_READABLE, f"input {name!r} ends in the middle of a value")
        try:
            values.append(part[begin:start].decode())
        except UnicodeDecodeError as error:
            raise Refusal(_NOT_READABLE, f"input {name!r} holds text that is not UTF-8") from error
    return values


def _written(tensor: OutputTensor) -> bytes:
    values = tensor.data
    assert values is not msgspec.UNSET
    if tensor.datatype in _NUMBERS:
        return np.asarray(values, _NUMBERS[tensor.datatype]).tobytes()
    texts = [value.encode() for value in values]
    return b"".join(part for text in texts for part in (len(text).to_bytes(_LENGTH_BYTES, "little"), text))
