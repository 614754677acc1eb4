"""Errors for users to read."""

from elcrec.masking import mask


class UserError(Exception):
    """A mistake outside the code: data, configuration or environment.

    The message is one line that says what is wrong, where, and what to do. The command line prints it
    without a traceback and exits with status 2.

    Attributes:
        details: text for further lines, such as a table of failed checks; often empty.
    """

    def __init__(self, what: str, *, where: object = None, fix: str | None = None, details: str = "") -> None:
        """Join the problem, its place and its remedy into one line, with passwords and tokens masked."""
        message = what if where is None else f"{where}: {what}"
        message = message if fix is None else f"{message}; {fix}"
        super().__init__(mask(" ".join(message.split())))
        self.details = mask(details)


class LostWorkError(UserError):
    """Work that was ended from outside: out of memory, out of time, or on a machine that was lost.

    Unlike after any other `UserError`, a retry may succeed.
    """
