"""Masking of passwords and tokens in messages."""

import re

MASK = "***"

_NAMES = r"(?:password|passwd|pwd|secret|token|signature|credential|api[_-]?key|access[_-]?key|private[_-]?key)"
_VALUE = r"[^\s,;&'\"<>#]+"
_RULES = (
    # scheme://user:password@host, and a token that stands alone before the @
    (re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s?#'\"<>]+@"), rf"\g<1>{MASK}@"),
    # ?X-Amz-Signature=…, redis' host:port,password="…", password=… in a connection string
    (re.compile(rf"(?i)([\w.-]*{_NAMES}[\w.-]*=['\"]?){_VALUE}"), rf"\g<1>{MASK}"),
    # "password": "…" of a JSON document, or of a dictionary that somebody prints
    (re.compile(rf"(?i)(['\"][\w.-]*{_NAMES}[\w.-]*['\"]: ?['\"])[^'\"]+"), rf"\g<1>{MASK}"),
    (re.compile(rf"(?i)([?&](?:sig|key|auth)=){_VALUE}"), rf"\g<1>{MASK}"),
    (re.compile(r"(?i)\b((?:bearer|basic)\s+)[a-z0-9._~+/=-]{8,}"), rf"\g<1>{MASK}"),
)


def mask(text: str) -> str:
    """Return a text with the users, passwords and tokens of addresses masked."""
    for pattern, shown in _RULES:
        text = pattern.sub(shown, text)
    return text
