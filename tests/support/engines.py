"""The default engine for tests: little memory, one thread."""

from elcrec.adapters.engine import open_engine
from elcrec.config import EngineConfig

ENGINE = open_engine(EngineConfig(memory_mb=256, threads=1))
