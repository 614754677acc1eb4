"""Opening the engine that a configuration names."""

from elcrec.adapters.duckdb_engine import DuckDBEngine
from elcrec.config import EngineConfig
from elcrec.data.engine import Engine


def open_engine(config: EngineConfig) -> Engine:
    """Return the engine for validate and sequences."""
    if config.kind == "spark":
        from elcrec.adapters.spark_engine import SparkEngine  # noqa: PLC0415 - the extra `spark`

        return SparkEngine(config)
    return DuckDBEngine(config)
