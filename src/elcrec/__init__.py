"""ELCRec: end-to-end learnable clustering for intent learning in sequential recommendation."""

__version__ = "0.1.0"
