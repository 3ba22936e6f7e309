"""Whether EMA statistics hold a trained codebook, whatever the table of codes holds."""

from vqdoctor.core.evidence import EmaState

LEAST_SPREAD = 1e-3
"""Spread of the means of codes in use, as a share of their length, over which they are a trained codebook.
The samples measured 0.19 to 1 where more than one code is in use; in float16 equal means differ by 5e-4."""


def has_live_means(ema: EmaState) -> bool:
    """Return whether counts and sums were written, and their quotients differ from code to code."""
    return not ema.never_written and ema.means_spread is not None and ema.means_spread > LEAST_SPREAD
