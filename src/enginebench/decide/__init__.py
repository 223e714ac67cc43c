"""Whether a build is slower than another: statistics, comparison and gate. Pure: no I/O, no clock, no engine."""
