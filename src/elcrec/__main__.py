"""`python -m elcrec` is the `elcrec` command."""

import sys

from elcrec.cli import main

sys.exit(main())
