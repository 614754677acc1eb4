"""No package under copyleft is in an image without a documented reason."""

from pathlib import Path

import pytest

from release.licences import REASONS, Package, main, packages, unexplained

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("image", ["train", "serve"])
def test_every_package_of_an_image_has_a_known_licence_and_copyleft_a_reason(
    image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(ROOT / f"requirements-{image}.lock")]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "| fastapi |" in said or image == "train"
    assert "no reason" not in said


@pytest.mark.parametrize(
    "licence", ["AGPL-3.0-only", "GNU General Public License v3 (GPLv3)", "MPL-2.0", "EPL-2.0", ""]
)
def test_copyleft_without_a_reason_and_no_licence_at_all_are_refused_by_name(licence: str) -> None:
    (said,) = unexplained([Package("newcomer", "1.0", licence), Package("other", "1.0", "BSD-3-Clause")])
    assert said.startswith("newcomer")


def test_a_lock_file_of_hashes_is_read_to_its_pins(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text("msgspec==0.21.1 \\\n    --hash=sha256:00\nno-such-thing==2 ; python_version < '3' \\\n")
    found = list(packages([lock]))
    assert [(each.name, each.version) for each in found] == [("msgspec", "0.21.1"), ("no-such-thing", "2")]
    assert [each.licence for each in found] == ["BSD-3-Clause", ""]


def test_every_reason_belongs_to_a_package_of_an_image() -> None:
    locked = {each.name for each in packages(ROOT / f"requirements-{image}.lock" for image in ("train", "serve"))}
    assert set(REASONS) <= locked
