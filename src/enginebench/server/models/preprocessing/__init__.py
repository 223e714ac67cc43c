"""Triton's model ``preprocessing``."""
