"""The one error that a user is meant to read."""

from elcrec.masking import mask


class UserError(Exception):
    """A mistake outside the code: data, configuration or environment.

    The message is one line that says what is wrong, where, and what to do. The command line prints it
    without a traceback and exits with status 2.

    Attributes:
        details: what may follow on further lines, such as a table of what failed; often empty.
    """

    def __init__(self, what: str, *, where: object = None, fix: str | None = None, details: str = "") -> None:
        """Join what is wrong, where it is and how to mend it into one line, without passwords and tokens."""
        message = what if where is None else f"{where}: {what}"
        message = message if fix is None else f"{message}; {fix}"
        super().__init__(mask(" ".join(message.split())))
        self.details = mask(details)


class LostWorkError(UserError):
    """Work that ended without an error of its own: out of memory or time, or on a machine that was lost.

    Tried again it may succeed, unlike after any other `UserError`.
    """
