"""One run, from its plan to its last cell, without pytest: what is measured, on what, and in what order."""
