"""Triton's model ``tensorrt_llm``."""
