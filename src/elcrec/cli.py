"""`elcrec <stage>`: argument parsing only. Every stage imports what it needs when it is called."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from elcrec import __version__
from elcrec.errors import UserError

_MIRROR = "ELCREC_MIRROR"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status (2 after a user's mistake, 130 after Ctrl-C)."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], None] = options.command
    try:
        command(options)
    except UserError as error:
        print(f"elcrec: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("elcrec: interrupted; the same command resumes or starts again", file=sys.stderr)
        return 130
    return 0
