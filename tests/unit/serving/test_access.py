from collections.abc import Collection
from pathlib import Path

import pytest

from elcrec.errors import UserError
from elcrec.serving.access import Access, read_keys, require_json
from elcrec.serving.messages import Refusal


def status(access: Access, **headers: str) -> int:
    found = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        access.require_key(found)
        access.require_own_page(found)
    except Refusal as refusal:
        return refusal.status
    return 200


def access(listens_on: str = "127.0.0.1", *hosts: str, keys: Collection[str] = ()) -> Access:
    return Access(listens_on=listens_on, hosts=hosts, api_keys=keys)


@pytest.mark.parametrize(
    ("origin", "host", "expected"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1:8080", 200),
        ("http://localhost:8080", "localhost:8080", 200),
        ("http://[::1]:8080", "[::1]:8080", 200),
        ("http://localhost:3000", "localhost:8080", 403),
        ("https://evil.example", "127.0.0.1:8080", 403),
        ("http://evil.example:8080", "evil.example:8080", 403),  # its name leads here
        ("null", "127.0.0.1:8080", 403),
        ("http://[", "127.0.0.1:8080", 403),
    ],
)
def test_a_page_of_another_origin_is_refused(origin: str, host: str, expected: int) -> None:
    for listens_on in ("127.0.0.1", "0.0.0.0"):
        assert status(access(listens_on), origin=origin, host=host) == expected


def test_a_name_is_known_once_it_is_configured() -> None:
    assert status(access("0.0.0.0"), origin="https://shop.example", host="shop.example") == 403
    assert status(access("0.0.0.0", "Shop.example"), origin="https://shop.example", host="shop.example") == 200


def test_without_an_origin_any_host_is_accepted_unless_hosts_are_set_or_the_server_is_local() -> None:
    assert status(access("0.0.0.0"), host="elcrec.models.svc") == 200
    assert status(access("0.0.0.0", "shop.example"), host="elcrec.models.svc") == 403
    assert status(access("localhost"), host="evil.example") == 403
    assert status(access("127.0.0.1"), host="localhost:8080") == 200


def test_the_key_is_required_if_there_is_one() -> None:
    guarded = access(keys=["s3cret"])

    assert status(guarded, host="localhost") == 401
    assert status(guarded, host="localhost", authorization="Bearer other") == 401
    assert status(guarded, host="localhost", authorization="Basic s3cret") == 401
    assert status(guarded, host="localhost", authorization="bearer s3cret") == 200
    assert status(guarded, host="localhost", x_api_key="s3cret") == 200


def test_while_keys_change_both_are_taken_and_afterwards_the_new_one_alone() -> None:
    shown = [{"authorization": f"Bearer {key}"} for key in ("old", "new", "oldnew", "")]

    assert [status(access(keys=["old", "new"]), host="localhost", **each) for each in shown] == [200, 200, 401, 401]
    assert [status(access(keys=["new"]), host="localhost", **each) for each in shown] == [401, 200, 401, 401]


def test_a_refusal_says_how_to_send_a_key() -> None:
    with pytest.raises(Refusal, match="authorization: Bearer KEY") as refused:
        access(keys=["s3cret"]).require_key({"authorization": "Bearer schl\xfcssel"})

    assert refused.value.headers == {"www-authenticate": "Bearer"}


def test_keys_come_from_the_environment_or_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("old\nnew\n")

    assert read_keys({}) == read_keys({"ELCREC_API_KEY": ""}) == []
    assert read_keys({"ELCREC_API_KEY": "old new"}) == ["old", "new"]
    assert read_keys({"ELCREC_API_KEY_FILE": str(tmp_path / "keys")}) == ["old", "new"]


@pytest.mark.parametrize(
    ("content", "environment", "said"),
    [
        (None, {}, "not readable"),
        ("\n", {}, "no API key"),
        ("k", {"ELCREC_API_KEY": "k"}, "both set"),
        ("schlüssel", {}, "ASCII"),
    ],
)
def test_a_key_that_cannot_be_had_stops_the_server_rather_than_opening_it(
    tmp_path: Path, content: str | None, environment: dict[str, str], said: str
) -> None:
    if content is not None:
        (tmp_path / "keys").write_text(content)

    with pytest.raises(UserError, match=said):
        read_keys({**environment, "ELCREC_API_KEY_FILE": str(tmp_path / "keys")})


@pytest.mark.parametrize(
    ("kind", "allowed"),
    [("application/json", True), ("Application/JSON; charset=utf-8", True), ("text/plain", False), (None, False)],
)
def test_a_request_that_writes_must_declare_json(kind: str | None, allowed: bool) -> None:
    headers = {} if kind is None else {"content-type": kind}
    if allowed:
        require_json(headers)
        return
    with pytest.raises(Refusal) as refused:
        require_json(headers)
    assert refused.value.status == 415
