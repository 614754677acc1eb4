"""Build sequences, the item index and the split."""

from kfp import dsl

from components._image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def sequences(
    config: str,
    engine: str,
    spark: str,
    validated: dsl.Input[dsl.Dataset],
    sequences: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Run stage sequences.

    Args:
        config: JSON of the section `sequences`.
        engine: JSON of the section `engine`.
        spark: JSON of the SparkApplication for an engine of kind spark (elcrec/adapters/spark_cluster.py); empty runs
            Spark in this pod, or on its master.
        validated: Output of validate.
        sequences: Sequences, histories, items and the split.
        metrics: The stage's numbers.
    """
    from elcrec.process import set_up_process

    set_up_process()

    from pathlib import Path

    from components._artifacts import describe, log
    from components._execution import engine_on
    from components._sections import read_section
    from elcrec.stages.sequences import build_sequences

    section, asked = read_section("sequences", config), read_section("engine", engine)
    with engine_on(spark, asked, Path(validated.path)) as (opened, given):
        numbers = build_sequences(section, given, Path(sequences.path), engine=opened)
    log(metrics, numbers)
    describe(sequences, file="sequences.parquet", config=config, source=validated)
