"""Scenario file → cells → requests. Pure: no I/O but reading the files that are named, no clock, no global randomness."""
