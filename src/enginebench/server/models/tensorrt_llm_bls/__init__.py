"""Triton's model ``tensorrt_llm_bls``."""
