"""The answers of all routes of one server over SQLite."""

import json
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from elcrec.serving.recommender import Query, Recommender
from tests.support.serving import Installation, Server, serving


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation.make(tmp_path_factory.mktemp("routes"))


@pytest.fixture(scope="module")
def server(installation: Installation) -> Iterator[Server]:
    limits = ("limits.body_bytes=20000", "limits.history=50", "limits.k=12", "limits.filter_ids=40", "limits.users=8")
    limits += ("limits.events=20",)  # so that too many still fit a body
    timeouts = ("client_timeout=1.5", "store_timeout=5", "event_timeout=20")
    with serving(installation, *(limits + timeouts)) as running:
        yield running


@pytest.fixture(scope="module")
def histories(installation: Installation) -> dict[str, list[str]]:
    table = pq.read_table(installation.inputs.sequences / "histories.parquet")
    return dict(zip(table["user_id"].to_pylist(), table["item_ids"].to_pylist(), strict=True))


@pytest.fixture(scope="module")
def recommender(installation: Installation) -> Recommender:
    champion = installation.registry.champion("elcrec")
    assert champion is not None
    return Recommender.load(champion.bundle)


def infer(server: Server, **inputs: Any) -> Any:
    tensors = []
    for name, values in inputs.items():
        array = np.array(values)
        datatype = "INT64" if array.dtype.kind == "i" else "BYTES"
        tensors.append({"name": name, "shape": list(array.shape), "datatype": datatype, "data": values})
    return server.post("/v2/models/elcrec/infer", {"id": "7", "inputs": tensors})


def test_the_answer_for_a_user_equals_the_bundle_s_for_their_published_history(
    server: Server, histories: dict[str, list[str]], recommender: Recommender
) -> None:
    for user in ("user-3", "user-4"):
        found = server.post("/recommend", {"user_id": user, "k": 5, "with_history": True}).json
        (expected,) = recommender.recommend([Query(history=histories[user], k=5)])

        assert [item["item_id"] for item in found["items"]] == expected.item_ids
        np.testing.assert_allclose([item["score"] for item in found["items"]], expected.scores, rtol=1e-5)
        assert found["history"] == {
            "source": "store",
            "known": len(histories[user]),
            "skipped": 0,
            "stale": False,
            "item_ids": histories[user],
        }
        assert found["intent"]["index"] == expected.intent
        assert found["intent"]["typical_items"] == recommender.typical_items(expected.intent or 0)
        assert (found["source"], found["store_available"]) == ("model", True)
        assert found["model"] == {"name": "elcrec", "version": "1"}


def test_filters_and_unknown_items_of_a_history_in_the_request(server: Server) -> None:
    request = {"history": ["item-1", "gone"], "k": 3, "filters": {"allow": ["item-1", "item-2", "item-3"]}}

    found = server.post("/recommend", request).json
    denied = server.post("/recommend", {**request, "filters": {"deny": [found["items"][0]["item_id"]]}}).json

    assert {item["item_id"] for item in found["items"]} == {"item-2", "item-3"}
    assert (found["history"]["known"], found["history"]["skipped"]) == (1, 1)
    assert found["items"][0] not in denied["items"]


def test_a_cold_user_gets_popular_items_within_the_allow_list_marked_as_such(server: Server) -> None:
    found = server.post("/recommend", {"user_id": "nobody", "k": 2, "filters": {"allow": ["item-8", "item-9"]}}).json

    assert (found["source"], found["intent"], found["history"]["source"]) == ("popular", None, "none")
    assert {item["item_id"] for item in found["items"]} == {"item-8", "item-9"}


def test_an_unknown_user_may_bring_her_history_along(server: Server) -> None:
    found = server.post("/recommend", {"user_id": "nobody", "history": ["item-1"]}).json

    assert (found["source"], found["history"]["source"], found["store_available"]) == ("model", "request", True)


def test_an_event_is_in_the_next_answer_and_a_replay_is_not(server: Server, histories: dict[str, list[str]]) -> None:
    before = server.post("/recommend", {"user_id": "user-9", "k": 12}).json["items"]
    clicked = before[0]["item_id"]
    event = {"user_id": "user-9", "item_id": clicked, "event_id": "e-1", "timestamp": "2026-01-02T03:04:05Z"}

    outcome = server.post("/events", {"events": [event]}).json
    replayed = server.post("/events", {"events": [event]}).json
    after = server.post("/recommend", {"user_id": "user-9", "k": 12, "with_history": True}).json

    assert outcome == {"accepted": 1, "duplicates": 0, "late": 0, "refused": 0, "users": 1}
    assert (replayed["accepted"], replayed["duplicates"]) == (0, 1)
    assert after["history"]["item_ids"] == [*histories["user-9"], clicked]
    assert clicked not in [item["item_id"] for item in after["items"]]


def test_an_event_without_a_time_is_of_now_and_one_of_the_future_is_refused(server: Server) -> None:
    future = (datetime.now(UTC) + timedelta(days=2)).isoformat()

    assert server.post("/events", {"events": [{"user_id": "user-8", "item_id": "item-1"}]}).status == 200
    refused = server.post("/events", {"events": [{"user_id": "u", "item_id": "i", "timestamp": future}]})

    assert refused.status == 422
    assert "future" in refused.json["error"]


def test_the_protocol_describes_server_and_model_and_says_when_it_is_ready(server: Server) -> None:
    assert set(server.get("/v2").json) == {"name", "version", "extensions"}
    assert server.get("/v2/health/live").json == {"live": True}
    assert server.get("/v2/health/ready").json == {"ready": True, "problems": []}
    assert server.get("/v2/models/elcrec/ready").json == {"name": "elcrec", "ready": True}
    model = server.get("/v2/models/elcrec").json
    assert (model["name"], model["versions"]) == ("elcrec", ["1"])
    for tensor in (*model["inputs"], *model["outputs"]):
        assert set(tensor) == {"name", "datatype", "shape"}
        assert tensor["datatype"] in {"BYTES", "FP32", "INT64", "BOOL"}
    unknown = server.get("/v2/models/other")
    assert (unknown.status, list(unknown.json)) == (404, ["error"])


def test_inference_answers_with_the_tensors_of_the_metadata(
    server: Server, histories: dict[str, list[str]], recommender: Recommender
) -> None:
    answer = infer(server, user_id=["user-1", "nobody"], k=[3]).json

    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("elcrec", "1", "7")
    declared = {one["name"]: one for one in server.get("/v2/models/elcrec").json["outputs"]}
    outputs = {one["name"]: one for one in answer["outputs"]}
    assert list(outputs) == list(declared)
    for name, tensor in outputs.items():
        assert tensor["datatype"] == declared[name]["datatype"]
        assert len(tensor["shape"]) == len(declared[name]["shape"])
        assert len(tensor["data"]) == np.prod(tensor["shape"])
    (expected,) = recommender.recommend([Query(history=histories["user-1"], k=3)])
    assert outputs["item_id"]["data"][:3] == expected.item_ids
    assert outputs["source"]["data"] == ["model", "popular"]
    assert outputs["intent"]["data"] == [expected.intent, -1]


@pytest.mark.parametrize(
    ("binary", "version", "compression"), [(True, "", None), (True, "1", "gzip"), (False, "", "deflate")]
)
def test_a_client_of_the_protocol_gets_what_the_plain_route_answers(
    server: Server, binary: bool, version: str, compression: str | None
) -> None:
    client = InferenceServerClient(f"127.0.0.1:{server.port}")
    users, k = InferInput("user_id", [2], "BYTES"), InferInput("k", [1], "INT64")
    users.set_data_from_numpy(np.array(["user-1", "user-2"], np.object_), binary_data=binary)
    k.set_data_from_numpy(np.array([3], np.int64), binary_data=binary)
    wanted = None if binary else [InferRequestedOutput(name, binary_data=False) for name in ("item_id", "score")]

    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("elcrec", version)
    assert client.get_model_metadata("elcrec", version)["name"] == "elcrec"
    found = client.infer(
        "elcrec",
        [users, k],
        version,
        outputs=wanted,
        request_compression_algorithm=compression,
        response_compression_algorithm=compression,
    )

    plain = [server.post("/recommend", {"user_id": user, "k": 3}).json["items"] for user in ("user-1", "user-2")]
    texts = [[text.decode() if binary else text for text in row] for row in found.as_numpy("item_id")]
    assert texts == [[item["item_id"] for item in items] for items in plain]
    scores = [[item["score"] for item in items] for items in plain]
    np.testing.assert_allclose(found.as_numpy("score"), scores, atol=1e-5, rtol=0)
    assert not client.is_model_ready("elcrec", "99")


def test_rows_without_values_are_counted_before_they_are_built(server: Server) -> None:
    tensor = {"name": "history", "shape": [10**30, 0], "datatype": "BYTES", "data": []}

    refused = server.post("/v2/models/elcrec/infer", {"inputs": [tensor]})

    assert refused.status == 422
    assert "at most 8" in refused.json["error"]


def test_inference_takes_histories_filled_up_nested_or_flat(server: Server) -> None:
    nested = infer(server, history=[["item-1", "item-2"], ["item-3", ""]]).json["outputs"]
    flat = {"name": "history", "shape": [2, 2], "datatype": "BYTES", "data": ["item-1", "item-2", "item-3", ""]}

    answer = server.post("/v2/models/elcrec/infer", {"inputs": [flat], "outputs": [{"name": "item_id"}]}).json

    assert answer["outputs"] == [one for one in nested if one["name"] == "item_id"]


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"user": ["a"]}, "no input is named 'user'"),
        ({"user_id": ["a"], "k": ["b"]}, "datatype INT64"),
        ({"user_id": [""]}, "empty id"),
        ({"user_id": ["a"], "history": [["i"], ["j"]]}, "different numbers of rows"),
        ({"user_id": ["a"] * 9}, "at most 8"),
        ({"user_id": ["a"], "k": [0]}, "k must be one whole number"),
        ({"user_id": ["a"], "k": [13]}, "at most 12"),
        ({"k": [1]}, "send one of them"),
    ],
)
def test_inference_refuses_what_the_metadata_do_not_allow(server: Server, inputs: dict[str, Any], said: str) -> None:
    refused = infer(server, **inputs)

    assert refused.status == 422
    assert said in refused.json["error"]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"{", 400, "not JSON"),
        (b"\xff\xfe", 400, "not JSON"),
        (b"[]", 422, "Expected `object`"),
        (b"{}", 422, "neither user_id nor history"),
        (b'{"user_id": ""}', 422, "user_id"),
        (b'{"user_id": null}', 422, "user_id"),
        (b'{"user_id": "u", "n": 3}', 422, "unknown field `n`"),
        (b'{"user_id": "u", "k": 13}', 422, "k is 13: ask for at most 12"),
        (b'{"user_id": "u", "k": 0}', 422, "k"),
        (json.dumps({"history": ["i"] * 51}).encode(), 422, "history has 51 entries: send at most 50"),
        (json.dumps({"history": [], "filters": {"deny": ["i"] * 41}}).encode(), 422, "at most 40"),
        (b'{"history": ["' + b"x" * 20_000 + b'"]}', 413, "more than 20000 bytes"),
    ],
)
def test_a_wrong_request_is_refused_with_a_reason(server: Server, body: bytes, status: int, said: str) -> None:
    refused = server.post("/recommend", body)

    assert refused.status == status
    assert said in refused.json["error"]


def test_endless_nesting_is_refused(server: Server) -> None:
    refused = server.post("/v2/models/elcrec/infer", b'{"inputs": [], "parameters": {"a": ' + b"[" * 10_000)

    assert refused.status == 400


def test_a_body_without_a_declared_length_is_cut_off_as_well(server: Server) -> None:
    head = b"POST /recommend HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), 30) as connection:
        connection.sendall(head + (b"3e8\r\n%s\r\n" % (b"x" * 1000)) * 21)
        answer = connection.makefile("rb").readline()

    assert answer.startswith(b"HTTP/1.1 413")


def test_unknown_paths_and_methods_are_refused_in_the_same_form(server: Server) -> None:
    with server.client() as client:
        method, path = client.request("DELETE", "/recommend"), client.request("GET", "/nowhere")

    assert (method.status, method.headers["allow"], list(method.json)) == (405, "POST", ["error"])
    assert (path.status, list(path.json)) == (404, ["error"])


@pytest.mark.parametrize(
    "begun",
    [b"POST /recomm", b"POST /recommend HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 50\r\n\r\n{", b""],
    ids=["headers", "body", "nothing"],
)
def test_a_slow_client_is_disconnected_and_others_are_not_affected(server: Server, begun: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 30) as connection:
        connection.sendall(begun)
        assert server.post("/recommend", {"history": []}).status == 200
        received = connection.makefile("rb").read()

    assert received.startswith(b"HTTP/1.1 408") if b"length" in begun else received == b""


def test_simultaneous_requests_are_ranked_together(server: Server) -> None:
    def batches() -> tuple[float, float]:
        return server.metric("elcrec_batch_size_count"), server.metric("elcrec_batch_size_sum")

    before = batches()
    start = threading.Barrier(16)

    def ask(user: int) -> list[Any]:
        with server.client() as client:
            start.wait()
            request = {"user_id": f"user-{user % 24}", "k": 1 + user % 12}
            return [client.post("/recommend", request) for _ in range(20)]

    with ThreadPoolExecutor(16) as pool:
        answers = [reply for replies in pool.map(ask, range(16)) for reply in replies]

    assert {reply.status for reply in answers} == {200}
    count, total = (after - earlier for after, earlier in zip(batches(), before, strict=True))
    assert total == 320
    assert count < total


def test_metrics_count_cold_users_unknown_items_and_routes(server: Server) -> None:
    before = [server.metric(name) for name in ("elcrec_cold_users_total", "elcrec_unknown_items_total")]

    server.post("/recommend", {"history": ["gone", "lost"]})

    after = [server.metric(name) for name in ("elcrec_cold_users_total", "elcrec_unknown_items_total")]
    assert [new - old for new, old in zip(after, before, strict=True)] == [1, 2]
    assert server.metric('elcrec_request_seconds_count{route="/recommend",status="200"}') > 0
    assert b'elcrec_bundle_info{digest="' in server.get("/metrics").body


def test_the_log_is_json_without_personal_data(server: Server) -> None:
    server.post("/recommend", {"user_id": "user-1", "history": ["item-77"]})
    server.post("/recommend", b'{"user_id": "user-1", "k": ')

    log = server.log()

    assert all(json.loads(line)["level"] for line in log.splitlines())
    assert not re.search(r"user-\d|item-\d", log)


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_load_nothing_from_elsewhere(server: Server, path: str) -> None:
    page = server.get(path)

    assert page.headers["content-type"].startswith("text/html")
    assert not re.search(rb"""(src|href)=["']?(https?:)?//|@import|url\(""", page.body)
    assert page.headers["content-security-policy"].startswith("default-src 'self'")


CASES = [
    (path, mode)
    for path in ("/recommend", "/events", "/v2/models/{name}/infer")
    for mode in (GenerationMode.NEGATIVE, GenerationMode.POSITIVE)
]


@pytest.mark.parametrize(("path", "mode"), [*CASES, ("/v2/models/{name}", GenerationMode.POSITIVE)])
def test_the_server_keeps_to_its_openapi_document(server: Server, path: str, mode: GenerationMode) -> None:
    # A body over the limit is refused for its size, whatever else is wrong with it.
    refusals = {"expected-statuses": ["400", "404", "406", "413", "415", "422"]}
    config = schemathesis.Config.from_dict({"checks": {"negative_data_rejection": refusals}})
    document = schemathesis.openapi.from_url(f"{server.address}/openapi.json", config=config)
    operation = document[path]["GET" if path.endswith("{name}") else "POST"]
    # No schema says which model there is, that a tensor's shape fits its data, that no event is of the future, or
    # that 11.0 is no whole number.
    left_out = [positive_data_acceptance, *([negative_data_rejection] if "{name}" in path else [])]

    @settings(max_examples=50, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def attack(case: schemathesis.Case) -> None:
        if path.endswith("infer"):
            case.path_parameters = {"name": "elcrec"}  # the body is not read for a model that does not exist
        case.call_and_validate(excluded_checks=left_out)

    attack()
    assert server.get("/v2/health/ready").status == 200


def test_the_server_has_not_failed_once(server: Server) -> None:
    page = server.get("/metrics").body.decode()

    assert 'status="500"' not in page
