"""Triton's model ``postprocessing``."""
