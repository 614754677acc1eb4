"""Access control: the API key, and the origin of a browser's request.

A page of another origin can make a browser send requests here. Its owner can also point a name at this address, so that
the requests look like our own (DNS rebinding). With each POST, a browser sends the page's origin and the host name that
it asked for.
"""

import hmac
from collections.abc import Collection, Mapping
from ipaddress import ip_address
from pathlib import Path

from elcrec.errors import UserError
from elcrec.serving.messages import Refusal

_UNAUTHORIZED, _FORBIDDEN, _UNSUPPORTED = 401, 403, 415
_LOCAL = "localhost"
_KEYS, _KEYS_FILE = "ELCREC_API_KEY", "ELCREC_API_KEY_FILE"


class Access:
    """Checks that a request must pass before it is read."""

    def __init__(self, *, listens_on: str, hosts: Collection[str], api_keys: Collection[str] = ()) -> None:
        """Take the rules.

        Args:
            listens_on: the address that the server listens on.
            hosts: names that clients use for this server, besides its addresses and localhost.
            api_keys: clients must send one of these; if empty, no key is needed.
        """
        self._hosts = {host.lower() for host in hosts}
        self._keys = [key.encode() for key in api_keys]
        self._always = bool(hosts) or _is_loopback(listens_on)

    def require_key(self, headers: Mapping[str, str]) -> None:
        """Check the API key, in `authorization: Bearer KEY` or `x-api-key: KEY`.

        Raises:
            Refusal: it is missing or wrong (401).
        """
        if not self._keys:
            return
        scheme, _, token = headers.get("authorization", "").partition(" ")
        # Starlette reads headers as Latin-1, so this gives the bytes that were sent.
        shown = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        # Every key is compared, so that the time taken does not reveal which one matched.
        if not sum([hmac.compare_digest(shown.encode("latin-1"), key) for key in self._keys]):
            message = "the API key is missing or wrong: send it as authorization: Bearer KEY"
            raise Refusal(_UNAUTHORIZED, message, headers={"www-authenticate": "Bearer"})

    def require_own_page(self, headers: Mapping[str, str]) -> None:
        """Check that a browser's request comes from a page of this server, under one of its names.

        Raises:
            Refusal: it does not (403).
        """
        origin, host = headers.get("origin"), headers.get("host", "").lower()
        if (origin is not None or self._always) and not self._is_ours(_name(host)):
            raise Refusal(_FORBIDDEN, "the server does not know this host name: add it to serve.hosts")
        if origin is not None and origin.lower().partition("://")[2] != host:
            raise Refusal(_FORBIDDEN, "the request comes from a page of another origin")

    def _is_ours(self, name: str) -> bool:
        return name == _LOCAL or name in self._hosts or _is_address(name)


def read_keys(environment: Mapping[str, str]) -> list[str]:
    """Return the API keys, separated by white space, from ELCREC_API_KEY or the file named by ELCREC_API_KEY_FILE.

    Raises:
        UserError: both are set, or the file cannot be read or holds no key, or a key is not ASCII.
    """
    text, file = environment.get(_KEYS, ""), environment.get(_KEYS_FILE)
    if file:
        if text:
            raise UserError(f"{_KEYS} and {_KEYS_FILE} are both set", fix="set only one of them")
        try:
            text = Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"not readable ({error})", where=file, fix=f"mend {_KEYS_FILE}") from error
        if not text.split():
            raise UserError("no API key", where=file, fix="write one key per line")
    keys = text.split()
    if not all(key.isascii() and key.isprintable() for key in keys):
        raise UserError("an API key holds characters that a header cannot carry", fix="use ASCII only")
    return keys


def require_json(headers: Mapping[str, str]) -> None:
    """Check that a body is declared as JSON, which a page of another origin cannot send without permission.

    Raises:
        Refusal: it does not (415).
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal(_UNSUPPORTED, "send content-type: application/json")


def _name(host: str) -> str:
    """Return a Host header without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(listens_on: str) -> bool:
    return listens_on == _LOCAL or (_is_address(listens_on) and ip_address(listens_on).is_loopback)
