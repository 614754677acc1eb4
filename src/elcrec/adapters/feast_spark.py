"""Publication by Feast's Spark engine, if feature_store.yaml names it, for views that live events do not change."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from feast import FeatureStore

from elcrec.adapters.environment import environment
from elcrec.adapters.feast_errors import feast_errors
from elcrec.adapters.quiet import quiet
from elcrec.errors import UserError

_ENGINE = "spark.engine"
_PYTHON = "PYSPARK_PYTHON"


def by_spark(feast: FeatureStore) -> bool:
    """Say whether the repository's batch engine is Spark."""
    engine = feast.config.batch_engine_config
    name = engine if isinstance(engine, str) else (engine or {}).get("type")
    return bool(name == _ENGINE)


def materialize(feast: FeatureStore, views: list[str], moment: datetime) -> None:
    """Have Spark bring online the rows of some views that bear this time.

    Raises:
        UserError: the extra `spark` or Java is missing, or Spark failed.
    """
    with _session(feast), feast_errors(), quiet("feast", "py4j"):
        from py4j.protocol import Py4JError  # noqa: PLC0415 - an optional dependency
        from pyspark.errors import PySparkException  # noqa: PLC0415 - as above

        try:
            feast.materialize(moment, moment, feature_views=views)
        except (PySparkException, Py4JError) as error:
            raise _failed(views, error) from error


@contextmanager
def _session(feast: FeatureStore) -> Iterator[None]:
    """Open a session with `spark_conf`, which Feast will use; Feast itself would ignore these settings."""
    try:
        from pyspark.errors import PySparkException  # noqa: PLC0415 - an optional dependency
        from pyspark.sql import SparkSession  # noqa: PLC0415 - as above
    except ImportError as error:
        fix = "pip install 'elcrec[spark]', or take batch_engine out of feature_store.yaml"
        raise UserError("Feast's Spark engine needs the extra spark", fix=fix) from error
    builder = SparkSession.builder.appName("elcrec push")
    for name, value in (getattr(feast.config.batch_engine, "spark_conf", None) or {}).items():
        builder = builder.config(name, value)
    with environment(**{_PYTHON: os.environ.get(_PYTHON, sys.executable)}):
        try:
            spark = builder.getOrCreate()
        except (PySparkException, RuntimeError) as error:
            fix = "install Java 17 or later; check spark_conf in feature_store.yaml"
            raise UserError(f"Spark does not start ({_first_line(error)})", fix=fix) from error
        try:
            yield
        finally:
            spark.stop()


def _failed(views: list[str], error: Exception) -> UserError:
    fix = "see Spark's log; executors need the online store and this project's packages"
    return UserError(f"Feast's Spark engine did not publish {', '.join(views)} ({_first_line(error)})", fix=fix)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # A worker's exception is the last line, below its traceback.
    return lines[-1] if "Traceback" in str(error) else (lines or [type(error).__name__])[0]
