"""Choose the best model of a sweep by its validation metrics."""

from typing import List  # noqa: UP035 - kfp ships the function's source, and reads this name

from kfp import dsl

from components._image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def select(
    models: dsl.Input[List[dsl.Model]],  # noqa: UP006 - as above
    model: dsl.Output[dsl.Model],
    table: dsl.Output[dsl.Markdown],
) -> None:
    """Copy the model with the highest validation NDCG@20; the test split is not used.

    Args:
        models: The members of the sweep.
        model: The best one.
        table: All members, best first.
    """
    from elcrec.process import set_up_process

    set_up_process()

    import json
    import shutil
    from pathlib import Path

    from components._artifacts import describe
    from components._sweep import by_validation, describe_members

    members = by_validation([Path(member.path) for member in models])
    Path(table.path).write_text(describe_members(members), encoding="utf-8")
    best = members[0]
    shutil.copytree(best.folder, model.path, dirs_exist_ok=True)
    chosen = next(member for member in models if Path(member.path) == best.folder)
    model.metadata.update(chosen.metadata, members=len(members))
    describe(table, config=json.dumps(best.section), source=chosen)
