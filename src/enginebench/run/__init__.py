"""One run, from its plan to its last cell, without pytest: what is measured, on which engine or server, in which order."""
