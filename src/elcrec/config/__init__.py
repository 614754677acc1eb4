"""The schema of params.yaml: every tunable once, typed, a section a stage.

Unknown keys, wrong types and values out of range are fatal and named by their path, such as
`train.batch_size`. A module here has one section; others import all of it from this package.
"""

from elcrec.config.engine import EngineConfig, is_bucket
from elcrec.config.evaluate import EvaluateConfig, GroupRule, NewItemsConfig, RulesConfig, SearchConfig
from elcrec.config.exposures import ExposuresConfig
from elcrec.config.fetch import FetchConfig, LocalFile, LogFormat, RemoteFile, SyntheticConfig
from elcrec.config.monitor import Check, MonitorConfig
from elcrec.config.promote import PromoteConfig, Rate
from elcrec.config.push import CounterfactualConfig, GateConfig, PushConfig
from elcrec.config.reading import load_config, merge, parse_config, parse_part, parse_section, read_mapping, to_dict
from elcrec.config.schema import Config
from elcrec.config.section import Day, Md5, Name, NonNegative, Positive, PositiveFloat, Section, Share, Weight
from elcrec.config.sequences import KindsConfig, SequencesConfig
from elcrec.config.serve import ChallengerConfig, ExposureLogConfig, LimitsConfig, ServeConfig
from elcrec.config.stream import StreamConfig
from elcrec.config.train import (
    LONGEST_WINDOW,
    CountConfig,
    EncoderConfig,
    IntentConfig,
    ModelConfig,
    NeighbourConfig,
    NextItemConfig,
    TrainConfig,
    ViewConfig,
)
from elcrec.config.validate import MAX_ID_LENGTH, CsvConfig, KeepConfig, ValidateConfig

__all__ = [
    "LONGEST_WINDOW",
    "MAX_ID_LENGTH",
    "ChallengerConfig",
    "Check",
    "Config",
    "CountConfig",
    "CounterfactualConfig",
    "CsvConfig",
    "Day",
    "EncoderConfig",
    "EngineConfig",
    "EvaluateConfig",
    "ExposureLogConfig",
    "ExposuresConfig",
    "FetchConfig",
    "GateConfig",
    "GroupRule",
    "IntentConfig",
    "KeepConfig",
    "KindsConfig",
    "LimitsConfig",
    "LocalFile",
    "LogFormat",
    "Md5",
    "ModelConfig",
    "MonitorConfig",
    "Name",
    "NeighbourConfig",
    "NewItemsConfig",
    "NextItemConfig",
    "NonNegative",
    "Positive",
    "PositiveFloat",
    "PromoteConfig",
    "PushConfig",
    "Rate",
    "RemoteFile",
    "RulesConfig",
    "SearchConfig",
    "Section",
    "SequencesConfig",
    "ServeConfig",
    "Share",
    "StreamConfig",
    "SyntheticConfig",
    "TrainConfig",
    "ValidateConfig",
    "ViewConfig",
    "Weight",
    "is_bucket",
    "load_config",
    "merge",
    "parse_config",
    "parse_part",
    "parse_section",
    "read_mapping",
    "to_dict",
]
