import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elcrec.data.ids import normal_id, normal_ids


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        (" u1\t", "u1"),
        ("\u00a0u1\u3000", "u1"),
        ("e\u0301", "\u00e9"),
        ("37.0", "37"),
        ("-37.000", "-37"),
        ("37.5", "37.5"),
        ("a.0", "a.0"),
        ("9007199254740993.0", "9007199254740993.0"),
        ("007", "007"),
        ("u 1", "u 1"),
    ],
)
def test_an_id_has_one_normal_form_in_columns_and_alone(text: str, normal: str) -> None:
    assert normal_id(text) == normal
    assert normal_ids(pa.chunked_array([[text]])).to_pylist() == [normal]


@given(st.lists(st.text(st.sampled_from(" \t\u00a0e\u03010.-+9a\n\ufeff\u00c5"), max_size=8), min_size=1))
def test_the_normal_form_of_a_column_is_that_of_each_id_and_normal_already(texts: list[str]) -> None:
    alone = [normal_id(text) or None for text in texts]
    assert normal_ids(pa.chunked_array([pa.array(texts, pa.string())])).to_pylist() == alone
    assert all(text is None or normal_id(text) == text for text in alone)


def test_tokens_for_missing_ids_are_nulls_also_with_blanks_around_them() -> None:
    found = normal_ids(pa.chunked_array([["NULL", " nan", "", "null-7", None]]), ["NULL", "nan"])
    assert found.to_pylist() == [None, None, None, "null-7", None]
