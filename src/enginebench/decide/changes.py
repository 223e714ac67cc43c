"""How changes are written, in reasons as in tables. Strings out, nothing else."""

MINUS = "\u2212"


def percent(ratio: float) -> str:
    """A relative change with its sign: ``+4.2%``, ``−18%``."""
    digits = 1 if abs(ratio) < 0.1 else 0
    return f"{ratio * 100:+.{digits}f}%".replace("-", MINUS)
