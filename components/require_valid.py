"""Stop a run whose log was refused, after its page is published."""

from kfp import dsl

from components._image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def require_valid(accepted: bool, reason: str) -> None:
    """Fail unless validate accepted the log.

    Args:
        accepted: The decision of validate.
        reason: The reason of the decision.

    Raises:
        UserError: the log was refused.
    """
    from elcrec.process import set_up_process

    set_up_process()

    from elcrec.errors import UserError

    if not accepted:
        raise UserError(reason, where="the log", fix="see the report of validate")
