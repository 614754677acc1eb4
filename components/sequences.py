"""Build sequences, the item index and the split."""

from kfp import dsl

from components._image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def sequences(
    config: str,
    engine: str,
    validated: dsl.Input[dsl.Dataset],
    sequences: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Run stage sequences.

    Args:
        config: JSON of the section `sequences`.
        engine: JSON of the section `engine`.
        validated: What validate wrote.
        sequences: Sequences, histories, items and the split.
        metrics: The stage's numbers.
    """
    from elcrec.process import set_up_process

    set_up_process()

    from pathlib import Path

    from components._support import describe, log, read_section
    from elcrec.adapters.engine import open_engine
    from elcrec.stages.sequences import build_sequences

    section, opened = read_section("sequences", config), open_engine(read_section("engine", engine))
    log(metrics, build_sequences(section, Path(validated.path), Path(sequences.path), engine=opened))
    describe(sequences, file="sequences.parquet", config=config, source=validated)
