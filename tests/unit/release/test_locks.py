"""All installed packages are pinned with hashes, and the images install their locked packages."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LOCKS = sorted(path.name for path in ROOT.glob("requirements*.lock"))
PIN = re.compile(r"(?m)^(\S+==\S+).*\n((?:    --hash=sha256:[0-9a-f]{64}.*\n)+)")


def pins(lock: str) -> dict[str, frozenset[str]]:
    found = PIN.findall((ROOT / lock).read_text())
    return {pin: frozenset(re.findall("sha256:[0-9a-f]{64}", hashes)) for pin, hashes in found}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_of_a_lock_file_has_hashes(lock: str) -> None:
    named = [line.split()[0] for line in (ROOT / lock).read_text().splitlines() if not line.startswith(" ")]
    assert named == list(pins(lock))


@pytest.mark.parametrize("image", ["train", "serve"])
def test_an_image_installs_what_was_tested(image: str) -> None:
    assert pins(f"requirements-{image}.lock").items() <= pins("requirements.lock").items()


def test_every_installation_demands_hashes() -> None:
    for file in ("Dockerfile", "Makefile"):
        text = (ROOT / file).read_text().replace("\\\n", " ")
        for line in re.findall(r".*\bpip[^\n]* install .*", text):
            ours = "--no-deps --no-index" in line or "--editable ." in line
            assert ours or "--require-hashes" in line, line
