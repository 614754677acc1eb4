"""What docs/extending.md says is enough is enough: its files are written, its lines registered, a model trained."""

import ast
import importlib
import re
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from elcrec import registry
from elcrec.config import parse_config
from elcrec.model.sequence_model import SequenceModel
from elcrec.pages.training_charts import loss_terms
from elcrec.training.loop import fit
from elcrec.training.objective import Objective
from elcrec.training.step import States
from tests.support.mixers import require_sound
from tests.unit.training.helpers import grouped_epoch, packed_epoch, ring_data, tiny_config

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
_FILE = r"`src/(?P<path>\S+)\.py`: a subclass.*?```python\n(?P<code>.*?)```"
_LINE = r"in `(?P<known>TERMS|MIXERS)`:\s+```diff\n\s*\+(?P<line>.*?)\n\s*```"


def _examples() -> list[tuple[str, str, str, str]]:
    """The module, the code, the registry and the line of each example."""
    text = PAGE.read_text(encoding="utf-8")
    files = [(one["path"].replace("/", "."), _dedented(one["code"])) for one in re.finditer(_FILE, text, re.DOTALL)]
    lines = [(one["known"], one["line"].strip()) for one in re.finditer(_LINE, text, re.DOTALL)]
    return [(*file, *line) for file, line in zip(files, lines, strict=True)]


def _dedented(code: str) -> str:
    return "\n".join(line.removeprefix("   ") for line in code.splitlines()) + "\n"


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The page's files where it puts them, and its lines in the registry."""
    for module, code, known, line in _examples():
        path = tmp_path / f"{module}.py"
        path.write_text(code, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(module, path)
        found = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found)
        monkeypatch.setitem(sys.modules, module, found)
        for name, place in ast.literal_eval(f"{{{line}}}").items():
            monkeypatch.setitem(getattr(registry, known), name, place)


def test_the_page_has_a_loss_and_a_mixer() -> None:
    assert [(known, module) for module, _, known, _ in _examples()] == [
        ("TERMS", "elcrec.training.terms.uniformity"),
        ("MIXERS", "elcrec.model.adjacent"),
    ]


@pytest.mark.usefixtures("registered")
def test_the_loss_has_its_weight_its_column_and_its_curve(tmp_path: Path) -> None:
    (example,) = (block for block in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL))
    settings = parse_config(yaml.safe_load(example)).train
    config = tiny_config(objective=settings.objective, weights=settings.weights)
    fitted = fit(ring_data(), config, tmp_path)
    assert fitted.terms[-1] == "uniformity"
    values = [row["uniformity"] for row in fitted.progress.history]
    assert all(value < 0 for value in values)
    assert "uniformity" in loss_terms(pd.DataFrame(fitted.progress.history))


@pytest.mark.usefixtures("registered")
def test_the_loss_equals_its_equation_in_both_layouts() -> None:
    data, config = ring_data(), tiny_config(objective="sasrec+uniformity", weights={"uniformity": 2.0})
    model, objective = SequenceModel(config.model, data.num_items).eval(), Objective(config)
    for step in (grouped_epoch(data, config)[0], packed_epoch(data, config)[0]):
        states = States(step.rows.of_items(model.encoder(step.rows)), step.rows, step.parts)
        means = torch.nn.functional.normalize(states.means("inputs"), dim=1).tolist()
        pairs = [
            torch.tensor([a - b for a, b in zip(one, other, strict=True)]).square().sum()
            for index, one in enumerate(means)
            for other in means[:index]
        ]
        expected = 2.0 * torch.exp(-2 * torch.stack(pairs)).mean().log()
        torch.testing.assert_close(objective.losses(model, step)["uniformity"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("registered")
def test_the_mixer_is_sound_and_learns(tmp_path: Path) -> None:
    require_sound(registry.load(registry.MIXERS["adjacent"]))
    plain = tiny_config(objective="sasrec")
    config = parse_config({"train": {"encoder": {"mixer": "adjacent", "window": 8, "hidden_size": 8}}}).train
    fitted = fit(ring_data(), tiny_config(objective="sasrec", encoder=config.encoder), tmp_path / "adjacent")
    assert fitted.progress.history[1]["loss"] < fitted.progress.history[0]["loss"]
    assert fitted.progress.history != fit(ring_data(), plain, tmp_path / "plain").progress.history


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"objective": "elcrec9"}, "objective 'elcrec9' is not one of sasrec, iclrec, elcrec, elcrec2"),
        ({"objective": "sasrec+uniform"}, "term of objective 'uniform' is not one of next_item, sequence"),
        ({"objective": "elcrec+intent"}, "objective 'elcrec.intent' has a term twice"),
        ({"weights": {"uniform": 1}}, "loss term 'uniform' is not one of"),
        ({"encoder": {"mixer": "adjacent"}}, "mixer 'adjacent' is not one of attention"),
    ],
    ids=str,
)
def test_a_name_that_is_not_registered_is_refused_with_those_that_are(section: dict[str, object], message: str) -> None:
    with pytest.raises(Exception, match=message.replace("+", r"\+")):
        parse_config({"train": section})


def test_cl4srec_is_a_preset_of_a_few_lines() -> None:
    preset = PAGE.parents[1] / "presets" / "cl4srec.yaml"
    assert len(preset.read_text().splitlines()) <= 10
    objective = Objective(parse_config(yaml.safe_load(preset.read_text())).train)
    assert list(objective.terms) == ["next_item", "sequence"]
    assert objective.needs == {"states", "views"}
