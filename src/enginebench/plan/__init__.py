"""Scenario file → cells → requests. Pure: reads the files that are named, and has no clock and no global randomness."""
