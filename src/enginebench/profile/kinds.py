"""The kinds of profile that can be asked for, and how many cells at once. Imports nothing."""

KINDS = ("iterations", "nsys", "torch", "python")
"""In the order in which they are taken."""

MOST_CELLS = 4
"""Each cell is driven once more for each kind."""
