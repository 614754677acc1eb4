"""Whatever somebody writes into params.yaml, the answer is a configuration or one line."""

import os
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elcrec.config import Config, load_config, parse_config, to_dict
from elcrec.errors import UserError

DOCUMENTS = int(os.environ.get("ELCREC_FUZZ_DOCUMENTS", "150"))
"""How many are tried; 50,000 take a quarter of an hour."""
Strategy = st.SearchStrategy[Any]

TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["", "..", "../x", "a\nb", "a\0", "elcrec++", "sasrec+sequence", "1e400", "~", "x" * 300]),
)
ODD: Strategy = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**63, 2**64, -(2**63) - 1, 10**400]),
    st.floats(),
    TEXTS,
    st.dates(),
    st.datetimes(),
    st.binary(max_size=4),
    st.sets(st.integers(), max_size=2),
)
ANYTHING = st.recursive(ODD, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS | st.integers(), inner))


def of_type(kind: Any) -> Strategy:
    """Values that a field of this type may have, and some just outside."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is not None:
        return compound(origin, inner)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return section(kind)
    plain: dict[Any, Strategy] = {
        bool: st.booleans(),
        int: st.integers(-2, 2000) | st.integers(),
        float: st.floats(0, 1) | st.floats(),
        str: TEXTS | st.sampled_from(["sample", "file", "elcrec", "attention", "skip", "ndcg@20"]),
    }
    return plain[kind]


def compound(origin: Any, inner: tuple[Any, ...]) -> Strategy:
    """Values of a type that is made of others."""
    if origin is Annotated:
        return of_type(inner[0])
    if origin in (Union, UnionType):
        return st.one_of([st.none() if one is type(None) else of_type(one) for one in inner])
    if origin is Literal:
        return st.sampled_from(inner)
    if origin is dict:
        return st.dictionaries(TEXTS | st.sampled_from(["beauty", "ndcg@20"]), of_type(inner[1]), max_size=3)
    return st.lists(of_type(inner[0]), max_size=3)


def section(kind: type[msgspec.Struct]) -> Strategy:
    """Mappings with some of a section's fields, now and then with an odd value or a field that it does not have."""
    hints = get_type_hints(kind, include_extras=True)
    fields = {field.name: of_type(hints[field.name]) | ODD for field in msgspec.structs.fields(kind)}
    known = st.fixed_dictionaries({}, optional=fields)
    return known | known.flatmap(lambda some: st.dictionaries(TEXTS, ODD, max_size=1).map(lambda more: some | more))


def written(document: object) -> str:
    """The document as YAML, with tags where PyYAML writes them."""
    try:
        return yaml.safe_dump(document)
    except (yaml.YAMLError, UnicodeError):
        return repr(document)


def answers(read: Callable[[], Config]) -> None:
    """A configuration, which survives being written down, or one line."""
    said = ""
    try:
        config = read()
    except UserError as error:
        said = str(error)
    else:
        assert parse_config(to_dict(config)) == config
    assert "\n" not in said
    assert len(said) < 2000


FUZZ = settings(
    max_examples=DOCUMENTS,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


@FUZZ
@given(document=section(Config) | ANYTHING)
def test_no_document_is_answered_by_a_traceback(tmp_path: Path, document: object) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(written(document).encode("utf-8", "surrogatepass"))
    answers(lambda: load_config(path))


@FUZZ
@given(text=st.text(max_size=60) | st.text("!&*{}[]<>:-?|\n \"'.0123456789einfatup/", max_size=60))
def test_no_text_is_answered_by_a_traceback(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    answers(lambda: load_config(path))
    answers(lambda: load_config(path, overrides=[text, f"train={text}", f"train.seed={text}"]))


@pytest.mark.parametrize("value", [date(2026, 1, 1), datetime(2026, 1, 1, tzinfo=UTC), b"x", {1}])
def test_a_value_that_yaml_alone_has_is_refused_by_name(tmp_path: Path, value: object) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump({"push": {"model_name": value}}))
    with pytest.raises(UserError, match=r"push.model_name: 2026|the YAML tag"):
        load_config(path)
