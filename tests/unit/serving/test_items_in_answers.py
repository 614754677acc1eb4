"""The items file's columns are in answers, and its categories filter them."""

from pathlib import Path
from types import SimpleNamespace

import msgspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from msgspec import UNSET

from elcrec.config import LimitsConfig
from elcrec.ranking.item_facts import align, read_items_file
from elcrec.serving.browsing import near_items
from elcrec.serving.inference import parse_infer, questions_of, write_infer
from elcrec.serving.messages import Refusal, read_recommend
from elcrec.serving.recommender import Query, Recommender
from elcrec.serving.responses import response_of, scored_items
from tests.support.push_inputs import Inputs, bundle_of, make_inputs

ROWS = [
    '{"item_id": "elsewhere", "title": "of another log", "category": "none"}',
    *(
        f'{{"item_id": "item-{n}", "title": "Title {n}", "category": "{"odd" if n % 2 else "even"}", "price": {n}.5}}'
        for n in range(1, 11)
    ),
    '{"item_id": "item-11"}',
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def recommender(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    folder = tmp_path_factory.mktemp("items")
    (folder / "items.jsonl").write_text("\n".join(ROWS))
    found = Recommender.load(bundle_of(inputs, folder / "bundle"))
    found.use_facts(align(read_items_file(folder / "items.jsonl"), found.catalogue.item_ids))
    return found


@pytest.mark.parametrize("history", [[], ["item-3", "item-14"]])
@pytest.mark.parametrize(
    ("filters", "left"),
    [
        ({"categories": ["odd"]}, {1, 3, 5, 7, 9}),
        ({"categories": ["odd", "even"], "deny_categories": ["even"], "deny": ["item-1"]}, {3, 5, 7, 9}),
        ({"deny_categories": ["odd", "nothing"]}, {2, 4, 6, 8, 10, 11, 12, 13, 14, 15}),
        ({"categories": ["none"]}, set()),
        ({"categories": []}, set()),
    ],
)
def test_categories_filter_with_and_without_a_history(
    recommender: Recommender, history: list[str], filters: dict, left: set[int]
) -> None:
    (answer,) = recommender.recommend([Query(history=history, k=15, **filters)])
    assert set(answer.item_ids) == {f"item-{n}" for n in left} - set(history)


def test_items_of_an_answer_are_named_as_far_as_the_file_knows_them(recommender: Recommender) -> None:
    (answer,) = recommender.recommend([Query(history=["item-3"], k=15)])
    items = {item.item_id: item for item in scored_items(answer, recommender)}
    assert (items["item-4"].title, items["item-4"].category) == ("Title 4", "even")
    assert items["item-4"].details == {"price": "4.5"}
    assert items["item-11"].title is items["item-12"].details
    near = {item.item_id: item for item in near_items(recommender, "item-5", 15)}
    assert near["item-4"].title == "Title 4"


def test_the_history_and_typical_items_are_named_where_the_history_is_asked_for(recommender: Recommender) -> None:
    (found,) = recommender.recommend([Query(history=["item-3", "unknown"], k=1)])
    serving = SimpleNamespace(name="m", version="1", recommender=recommender)
    answer = SimpleNamespace(
        recommendation=found,
        serving=serving,
        answer_id="a",
        source="request",
        history=["item-3", "unknown"],
        stale=False,
        store_available=True,
        arm=None,
    )
    said = response_of(answer, with_history=True)  # type: ignore[arg-type]
    assert said.titles["item-3"] == "Title 3"
    assert response_of(answer, with_history=False).titles is UNSET  # type: ignore[arg-type]


def test_the_inference_protocol_filters_by_category_and_names_items_where_it_is_asked_to(
    recommender: Recommender,
) -> None:
    inputs = [
        {"name": "history", "datatype": "BYTES", "shape": [2, 1], "data": ["item-3", "item-4"]},
        {"name": "k", "datatype": "INT64", "shape": [1], "data": [4]},
        {"name": "categories", "datatype": "BYTES", "shape": [2], "data": ["odd", "even"]},
        {"name": "deny_categories", "datatype": "BYTES", "shape": [1], "data": ["even"]},
    ]
    outputs = [{"name": name} for name in ("item_id", "title", "category")]
    plain, named = (parse_infer(msgspec.json.encode({"inputs": inputs} | more)) for more in ({}, {"outputs": outputs}))
    questions = questions_of(named, LimitsConfig())
    found = recommender.recommend(
        [
            Query(history=one.history, k=one.k, categories=one.categories, deny_categories=one.deny_categories)
            for one in questions
        ]
    )
    serving = SimpleNamespace(name="m", version="1", recommender=recommender)
    answers = [
        SimpleNamespace(
            recommendation=one, serving=serving, answer_id="a", source="request", store_available=True, arm=None
        )
        for one in found
    ]
    said = {tensor.name: tensor for tensor in write_infer(named, answers).outputs}  # type: ignore[arg-type]
    assert said["title"].shape == said["item_id"].shape == [2, 4]
    assert said["title"].data == [f"Title {item.removeprefix('item-')}" for item in said["item_id"].data]
    assert said["category"].data == ["odd"] * 8
    assert said == {tensor.name: tensor for tensor in write_infer(plain, answers).outputs if tensor.name in said}  # type: ignore[arg-type]


def test_a_bundle_carries_titles_and_further_columns(recommender: Recommender) -> None:
    described = recommender.describe(["item-2", "item-15"])
    assert described == [{"title": "Title 2", "category": "even", "price": "2.5"}, {}]


def test_too_many_categories_are_refused() -> None:
    body = b'{"user_id": "u", "filters": {"categories": ["a", "b"]}}'
    with pytest.raises(Refusal, match="has 2 entries"):
        read_recommend(body, LimitsConfig(filter_ids=1))


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_the_catalogue_may_be_csv_json_lines_or_parquet(tmp_path: Path, ending: str) -> None:
    table = pa.table({"item_id": ["7", "8"], "brand": ["x", None], "category": ["c", "d"]})
    path = tmp_path / f"items.{ending}"
    if ending == "csv":
        pyarrow.csv.write_csv(table, path)
    elif ending == "parquet":
        pq.write_table(table, path)
    else:
        path.write_text('{"item_id": 7, "brand": "x", "category": "c"}\n{"item_id": 8, "category": "d"}\n')
    facts = align(read_items_file(path), pa.array(["7", "8", "9"]))
    assert facts.describe([1, 2, 3]) == [{"category": "c", "brand": "x"}, {"category": "d"}, {}]
