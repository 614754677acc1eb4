"""The section `exposures`: what servers showed, joined with what users did next."""

from elcrec.config.section import PositiveFloat, Section


class ExposuresConfig(Section, frozen=True, kw_only=True):
    """Joining what servers showed with what users did next."""

    window: PositiveFloat = 86_400.0
    """Seconds after an answer within which an event that names no answer may follow from it, and within which the
    user's next event counts."""
    page: bool = True
    """Whether a page is written (with the extra `report`)."""
