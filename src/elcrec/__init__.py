"""ELCRec: end-to-end learnable clustering for intent learning in sequential recommendation."""

import os

__version__ = "0.1.0"

# libgomp reads this when torch is first imported. Its threads otherwise spin while they wait for each other, and as
# soon as another process wants a core a step of training takes forty times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
