import gzip
import json
import zlib
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.http import InferInput, InferRequestedOutput
from tritonclient.http._infer_result import InferResult
from tritonclient.http._utils import _get_inference_request

from elcrec.config import LimitsConfig
from elcrec.serving import binary, inference
from elcrec.serving.inference import InferResponse, OutputTensor, Tensor
from elcrec.serving.messages import Refusal


def tensor(datatype: str, size: object) -> Tensor:
    return Tensor(name="t", shape=[1], datatype=datatype, parameters={binary.SIZE: size})


def refused(call: Any) -> int:
    with pytest.raises(Refusal) as caught:
        call()
    return caught.value.status


def test_tensors_packed_by_a_client_are_read_unchanged() -> None:
    users, k = InferInput("user_id", [2], "BYTES"), InferInput("k", [1], "INT64")
    users.set_data_from_numpy(np.array(["user-1", "Zoë"], np.object_))
    k.set_data_from_numpy(np.array([3], np.int64))
    outputs = [InferRequestedOutput("item_id"), InferRequestedOutput("score", binary_data=False)]

    body, size = _get_inference_request([users, k], "7", outputs, 0, False, False, 0, None, None)
    head, data = binary.split(body, str(size))
    request = inference.parse_infer(head)
    binary.fill(request.inputs, data)

    asked = inference.questions_of(request, LimitsConfig())
    assert [(question.user_id, question.k) for question in asked] == [("user-1", 3), ("Zoë", 3)]
    assert inference.binary_outputs(request) == {"item_id"}


def test_packed_tensors_are_read_by_a_client_of_the_protocol() -> None:
    response = InferResponse(
        model_name="m",
        model_version="1",
        outputs=[
            OutputTensor(name="item_id", shape=[1, 2], datatype="BYTES", data=["ä", ""]),
            OutputTensor(name="score", shape=[1, 2], datatype="FP32", data=[0.5, -1.0]),
            OutputTensor(name="count", shape=[1], datatype="INT64", data=[2]),
            OutputTensor(name="store_available", shape=[1], datatype="BOOL", data=[False]),
        ],
    )

    body, size = binary.pack(response, frozenset({"item_id", "score", "store_available"}))
    found = InferResult.from_response_body(body, header_length=size)

    assert [value.decode() for value in found.as_numpy("item_id").ravel()] == ["ä", ""]
    assert found.as_numpy("score").tolist() == [[0.5, -1.0]]
    assert found.as_numpy("count").tolist() == [2]
    assert found.as_numpy("store_available").tolist() == [False]


def test_without_a_binary_tensor_an_answer_is_json() -> None:
    outputs = [OutputTensor(name="count", shape=[1], datatype="INT64", data=[2])]

    body, size = binary.pack(InferResponse(model_name="m", model_version="1", outputs=outputs), frozenset())

    assert size is None
    assert json.loads(body)["outputs"] == [{"name": "count", "shape": [1], "datatype": "INT64", "data": [2]}]


@pytest.mark.parametrize(
    ("datatype", "size", "data"),
    [
        ("INT64", 7, b"1234567"),
        ("INT64", 16, b"12345678"),
        ("INT64", -1, b""),
        ("INT64", True, b"1"),
        ("INT64", "8", b"12345678"),
        ("INT64", 8, b"12345678rest"),
        ("BYTES", 3, b"\x01\x00\x00"),
        ("BYTES", 5, b"\x02\x00\x00\x00a"),
        ("BYTES", 8, b"\xff\xff\xff\xffaaaa"),
        ("BYTES", 5, b"\x01\x00\x00\x00\xff"),
    ],
)
def test_data_that_do_not_fit_their_tensor_are_refused(datatype: str, size: object, data: bytes) -> None:
    assert refused(lambda: binary.fill([tensor(datatype, size)], data)) == 400


@pytest.mark.parametrize("header", ["", "-1", "x", "11", "²"])
def test_a_header_that_is_no_length_of_the_body_is_refused(header: str) -> None:
    assert refused(lambda: binary.split(b"0123456789", header)) == 400


@given(data=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for datatype in ("BYTES", "INT64", "BOOL", "other"):
        with suppress(Refusal):
            binary.fill([tensor(datatype, len(data))], data)


def test_a_compressed_body_is_read_and_no_more_of_it_than_a_body_may_have() -> None:
    assert binary.decompress(gzip.compress(b"abc"), "gzip", 3) == b"abc"
    assert binary.decompress(zlib.compress(b"abc"), "deflate", 3) == b"abc"
    assert binary.decompress(b"abc", "", 3) == b"abc"
    assert refused(lambda: binary.decompress(gzip.compress(b"a" * 10**8), "gzip", 1000)) == 413
    assert refused(lambda: binary.decompress(gzip.compress(b"abc")[:-9], "gzip", 1000)) == 400
    assert refused(lambda: binary.decompress(b"abc", "gzip", 1000)) == 400
    assert refused(lambda: binary.decompress(b"abc", "br", 1000)) == 415


def test_a_long_answer_is_compressed_if_the_client_accepts_it() -> None:
    content = b"abc" * 1000

    packed, headers = binary.compress(content, "br;q=1, gzip")

    assert headers == {"content-encoding": "gzip"}
    assert gzip.decompress(packed) == content
    assert binary.compress(content, "") == (content, {})
    assert binary.compress(b"short", "gzip") == (b"short", {})
