import json
from pathlib import Path

import pytest
from kfp import dsl

from components._sections import write_section
from components._sweep import spread
from components.select import select
from elcrec.config import Config, to_dict
from elcrec.errors import UserError

SECTION = write_section(Config().train)


def test_a_grid_spreads_out_into_every_combination() -> None:
    members = [json.loads(text) for text in spread(SECTION, '{"seed": [1, 2], "encoder.num_blocks": [1, 3]}')]
    assert [(m["seed"], m["encoder"]["num_blocks"]) for m in members] == [(1, 1), (1, 3), (2, 1), (2, 3)]
    assert all(m["batch_size"] == Config().train.batch_size for m in members)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("[1]", "parameter grid: not a JSON object of lists"),
        ('{"seed": 1}', "parameter grid: not a JSON object of lists"),
        ('{"seed": []}', "0 combinations"),
        (json.dumps({"seed": list(range(65))}), "65 combinations"),
        ('{"seeds": [1]}', "seeds"),
        ('{"epochs": [0]}', "train.epochs"),
    ],
)
def test_a_faulty_grid_is_one_clear_line(grid: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        spread(SECTION, grid)
    assert "\n" not in str(raised.value)


def _member(folder: Path, *, seed: int, ndcg: float) -> dsl.Model:
    folder.mkdir()
    section = to_dict(Config().train) | {"seed": seed}
    document = {"train": section, "valid": {"ndcg@20": ndcg, "hr@20": 2 * ndcg}}
    (folder / "config.json").write_text(json.dumps(document), encoding="utf-8")
    return dsl.Model(name="model", uri=str(folder), metadata={"seed": seed, "data_md5": "1"})


def test_the_best_by_validation_is_selected_and_all_are_listed_best_first(tmp_path: Path) -> None:
    scores = (0.1, 0.3, 0.2)
    models = [_member(tmp_path / str(seed), seed=seed, ndcg=score) for seed, score in enumerate(scores)]
    model = dsl.Model(name="model", uri=str(tmp_path / "best"))
    table = dsl.Markdown(name="table", uri=str(tmp_path / "table"))
    select.python_func(models=models, model=model, table=table)
    assert json.loads((tmp_path / "best" / "config.json").read_text(encoding="utf-8"))["train"]["seed"] == 1
    assert model.metadata == {"seed": 1, "data_md5": "1", "members": 3}
    assert table.metadata["data_md5"] == "1"
    lines = (tmp_path / "table").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "| seed | validation NDCG@20 | HR@20 |"
    assert lines[2:] == ["| 1 | 0.3000 | 0.6000 |", "| 2 | 0.2000 | 0.4000 |", "| 0 | 0.1000 | 0.2000 |"]
