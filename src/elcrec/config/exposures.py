"""The section `exposures`: what servers showed, joined with what users did next."""

from elcrec.config.section import PositiveFloat, Section


class ExposuresConfig(Section, frozen=True, kw_only=True):
    """Joining exposures with the events that followed."""

    window: PositiveFloat = 86_400.0
    """Seconds after an answer within which an event that names no answer may follow from it, and within which the
    user's next event counts."""
    page: bool = True
    """Whether to write a page (with the extra `report`)."""
