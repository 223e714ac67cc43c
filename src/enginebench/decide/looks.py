"""At which numbers of pairs the data may be looked at, and what that costs.

Looking several times gives chance several chances. Every look therefore tests at the same, smaller level (Pocock,
Biometrika 64 (1977) 191-199), which stays valid when looks are missed or the budget ends early.
"""

from collections.abc import Sequence

LOOKS = (4, 8, 12, 20)
"""Numbers of pairs after which is decided: even, so that the ABBA order cancels a steady drift at each of them."""

ALPHA = 0.05
"""Of a whole procedure, with all its looks and gated endpoints: how often it may say "regression" without one."""

PENALTIES = (1.0, 1.9, 2.6, 3.4)
"""By how much a p-value is multiplied for one, two … looks.

These are ALPHA' / P⁻¹(ALPHA') for the smallest level that Holm asks for, ALPHA' = 0.05 / 4, where P(p) is the chance
that any look at t statistics of the same growing sample falls below p: 1.87, 2.58 and 3.35 from two million normal
samples at 4, 8, 12 and 20 pairs; larger levels need less (1.73, 2.32, 2.96 at 0.05). More looks: their number,
which Bonferroni's inequality grants always.
"""


def looks_within(budget_pairs: int) -> tuple[int, ...]:
    """The looks of a measurement that ends after ``budget_pairs`` pairs at the latest, the last one at its end."""
    return (*(look for look in LOOKS if look < budget_pairs), budget_pairs)


def penalty(looks: Sequence[int]) -> float:
    """The factor on p-values for this many looks."""
    return PENALTIES[len(looks) - 1] if len(looks) <= len(PENALTIES) else float(len(looks))


def level(looks: Sequence[int]) -> float:
    """The one-sided level of each look; the two-sided confidence of its intervals is 1 − 2 level."""
    return ALPHA / penalty(looks)
