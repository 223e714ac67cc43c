"""p-values of several endpoints together: each is worth less, the more there are. The last axis runs over endpoints."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def holm(p_values: Floats) -> Floats:
    """Adjusted so that the chance of any wrong finding keeps its level (Holm, Scand. J. Statist. 6 (1979) 65-70)."""
    count = p_values.shape[-1]
    order = np.argsort(p_values, axis=-1)
    weighted = np.take_along_axis(p_values, order, -1) * np.arange(count, 0, -1)
    return _unsorted(np.minimum(1.0, np.maximum.accumulate(weighted, axis=-1)), order)


def benjamini_hochberg(p_values: Floats) -> Floats:
    """Adjusted so that the share of wrong findings keeps its level (J. R. Statist. Soc. B 57 (1995) 289-300)."""
    count = p_values.shape[-1]
    order = np.argsort(p_values, axis=-1)
    weighted = np.take_along_axis(p_values, order, -1) * count / np.arange(1, count + 1)
    from_last = np.minimum.accumulate(weighted[..., ::-1], axis=-1)[..., ::-1]
    return _unsorted(np.minimum(1.0, from_last), order)


def _unsorted(values: Floats, order: NDArray[np.int64]) -> Floats:
    back = np.empty_like(values)
    np.put_along_axis(back, order, values, -1)
    return back
