"""Connecting to the broker that the environment names."""

from collections.abc import Mapping

from elcrec.config import StreamConfig
from elcrec.errors import UserError
from elcrec.serving.stream import Topic

_SCHEMES = {"redis": ("redis://", "rediss://"), "kafka": ("kafka://",)}
_ADDRESS = "ELCREC_STREAM"


def open_topic(config: StreamConfig, environment: Mapping[str, str]) -> Topic:
    """Return the topic of the section `stream`, at the address in `ELCREC_STREAM`, without connecting yet.

    Raises:
        UserError: the address is missing or of another kind, or the client is not installed or refuses an option.
    """
    address = environment.get(_ADDRESS, "")
    if not address.startswith(_SCHEMES[config.kind]):
        fix = f"set {_ADDRESS} to {_SCHEMES[config.kind][0]}host:port, or stream.kind"
        raise UserError(f"no address of a {config.kind} broker is set", where=_ADDRESS, fix=fix)
    try:
        if config.kind == "kafka":
            from elcrec.adapters.kafka_stream import KafkaTopic  # noqa: PLC0415 - an extra of its own

            return KafkaTopic(config, address)
        from elcrec.adapters.redis_stream import RedisTopic  # noqa: PLC0415

        return RedisTopic(config, address)
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed", fix="pip install 'elcrec[stream]'") from error
