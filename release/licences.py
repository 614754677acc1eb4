"""`python -m release.licences LOCK…`: the licences of all packages of an image, from their metadata, in Markdown.

A copyleft licence needs a reason in `REASONS`; without one the report is still written, and the exit status is 1.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageMetadata, PackageNotFoundError, metadata
from pathlib import Path
from typing import NamedTuple

_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)", re.MULTILINE)
_COPYLEFT = re.compile(r"GPL|General Public|MPL|Mozilla|EPL|Eclipse|CDDL|EUPL|SSPL|Affero")
_LONGEST = 80

_FILES = "MPL-2.0 binds changes to its own files; they are unchanged"
_CHOICE = "offered under either licence; taken under {}"
REASONS: Mapping[str, str] = {
    "asyncssh": f"{_CHOICE.format('EPL-2.0')}, which binds changes to its own files; a part of DVC, unchanged",
    "certifi": _FILES,
    "dulwich": _CHOICE.format("Apache-2.0"),
    "grandalf": f"{_CHOICE.format('EPL-1.0')}, which binds changes to its own files; a part of DVC, unchanged",
    "orjson": _FILES,
    "pathspec": _FILES,
    "psycopg": "LGPL-3.0: imported as a library that anybody may replace in the image",
    "psycopg-binary": "LGPL-3.0: imported as a library that anybody may replace in the image",
    "pygit2": "GPL-2.0 with the linking exception, which permits use from code of any licence; a part of DVC",
    "shtab": _FILES,
    "tqdm": _FILES,
}
"""Packages under copyleft that an image may contain, with the reasons."""


class Package(NamedTuple):
    """A package of a lock file."""

    name: str
    version: str
    licence: str

    @property
    def is_copyleft(self) -> bool:
        """Whether its licence imposes conditions on works distributed with it."""
        return bool(_COPYLEFT.search(self.licence))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; return 1 if a package is under copyleft without a reason, or has an unknown licence."""
    found = sorted(set(packages(map(Path, sys.argv[1:] if arguments is None else arguments))))
    sys.stdout.write("\n".join(report(found)) + "\n")
    faults = list(unexplained(found))
    for fault in faults:
        sys.stderr.write(f"licences: {fault}\n")
    return int(bool(faults))


def packages(locks: Iterable[Path]) -> Iterator[Package]:
    """Yield the packages of lock files, with the licences in the metadata of their installed copies."""
    for lock in locks:
        for name, version in _PIN.findall(lock.read_text(encoding="utf-8")):
            yield Package(name, version, _licence(name))


def report(found: Sequence[Package]) -> Iterator[str]:
    """Yield the lines of the report: copyleft with its reasons first, then everything."""
    yield from ("# Licences", "", "| copyleft | version | licence | why it may be here |", "| - | - | - | - |")
    for each in found:
        if each.is_copyleft:
            yield f"| {each.name} | {each.version} | {each.licence} | {REASONS.get(each.name, '**no reason**')} |"
    yield from ("", "| package | version | licence |", "| - | - | - |")
    yield from (f"| {each.name} | {each.version} | {each.licence or 'unknown'} |" for each in found)


def unexplained(found: Iterable[Package]) -> Iterator[str]:
    """Yield the problems that prevent a release."""
    for each in found:
        if not each.licence:
            yield f"{each.name}: no licence known; install it, or name its licence in release/licences.py"
        elif each.is_copyleft and each.name not in REASONS:
            yield f"{each.name} is under {each.licence}; keep it out of the image, or give the reason for it"


_SAID_ELSEWHERE = {"huey": "MIT", "sigstore-models": "MIT", "skops": "MIT"}
"""Licences of packages whose metadata has none, taken from their licence texts."""


def _licence(name: str) -> str:
    """Return the licence of an installed package: its expression, else its classifiers, else its free text."""
    try:
        said = metadata(name)
    except PackageNotFoundError:
        return _SAID_ELSEWHERE.get(name, "")
    classifiers = [each.rpartition("::")[2].strip() for each in _all(said, "Classifier") if each.startswith("License")]
    own = [each for each in classifiers if each != "OSI Approved"]
    texts = (*_all(said, "License-Expression"), ", ".join(own), *_all(said, "License"))
    first = next((line for text in texts for line in text.splitlines() if line.strip()), "")
    return first.strip()[:_LONGEST] or _SAID_ELSEWHERE.get(name, "")


def _all(said: PackageMetadata, name: str) -> list[str]:
    return [str(each) for each in said.get_all(name) or []]


if __name__ == "__main__":
    sys.exit(main())
