"""The whole of params.yaml, a section a stage, and what holds between sections."""

from elcrec.config.engine import EngineConfig
from elcrec.config.evaluate import EvaluateConfig
from elcrec.config.exposures import ExposuresConfig
from elcrec.config.fetch import FetchConfig
from elcrec.config.monitor import MonitorConfig
from elcrec.config.promote import PromoteConfig
from elcrec.config.push import PushConfig
from elcrec.config.section import Section
from elcrec.config.sequences import SequencesConfig
from elcrec.config.serve import ServeConfig
from elcrec.config.stream import StreamConfig
from elcrec.config.train import TrainConfig
from elcrec.config.validate import ValidateConfig


class Config(Section, frozen=True, kw_only=True):
    """The whole configuration (params.yaml)."""

    fetch: FetchConfig = FetchConfig()
    """Stage fetch."""
    validate: ValidateConfig = ValidateConfig()
    """Stage validate."""
    sequences: SequencesConfig = SequencesConfig()
    """Stage sequences."""
    train: TrainConfig = TrainConfig()
    """Stage train."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """Stage evaluate."""
    push: PushConfig = PushConfig()
    """Stage push."""
    serve: ServeConfig = ServeConfig()
    """The server."""
    stream: StreamConfig = StreamConfig()
    """Events from a broker."""
    exposures: ExposuresConfig = ExposuresConfig()
    """Stage exposures."""
    monitor: MonitorConfig = MonitorConfig()
    """Stage monitor."""
    promote: PromoteConfig = PromoteConfig()
    """Stage promote."""
    engine: EngineConfig = EngineConfig()
    """The engine of validate, sequences, exposures, monitor and promote."""

    def __post_init__(self) -> None:
        """Check that a model is served histories as long as those in the evaluation."""
        window, kept = self.train.encoder.window, self.sequences.history
        if window > kept:
            raise ValueError(
                f"train.encoder.window {window} is more than sequences.history {kept}: the model would be served "
                "shorter histories than it was evaluated on. Raise sequences.history or lower the window"
            )
