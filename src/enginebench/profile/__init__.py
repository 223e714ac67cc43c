"""Profiled reruns of chosen cells, and the joint timeline: never compared, never gated."""
