"""The terms on which two stored runs are compared: what a person asks for, and this machine's noise where it counts."""

from collections.abc import Sequence
from pathlib import Path

from enginebench.decide.model import Policy
from enginebench.run.baselines import Stored
from enginebench.run.comparison import Terms, made_together
from enginebench.run.noise import known_noise


def stored_terms(
    root: Path, old: Stored, new: Stored, *, policy: Policy, allow: Sequence[str] = (), gates: Sequence[str] = ()
) -> Terms:
    """Terms for runs or baselines. The sides of one A/B measurement need no noise.

    Raises:
        RunError: what is kept about noise cannot be read.
    """
    known = None
    if not made_together(old.data, new.data):
        known = known_noise(root, new.data["environment"], new.data["plan"]["scenarios"])
    return Terms(
        policy=policy,
        allow=tuple(allow),
        gates=tuple(gates),
        noise=known.noise if known else None,
        noise_sessions=known.sessions if known else 0,
        sources=(old.source, new.source),
    )
