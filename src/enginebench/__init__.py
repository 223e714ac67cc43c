"""enginebench puts TensorRT-LLM engine builds on a test bench.

The package root holds nothing but the version: every module is imported by its full name, where it is used.
"""

__version__ = "0.1.0"
