"""Whether codes were set anew long after the training began."""

from vqdoctor.core.evidence import CodeExpiry, EmaState, LiveReplacement, TrainForward, UnmovedRows

SMOOTHED = 1e-4
"""Ten times the usual epsilon, 1e-5: smoothing that is written back at each update with decay d holds the
counts of unused codes at epsilon / (1 - d)."""
ABOVE = 10.0
"""A count of more than this many times what is left of all counts after d^t was written later."""
RUNAWAY = 0.4
"""Share of all codes that a pass can replace from which a replacement runs away: see VQ402."""
DRIVEN = 0.2
"""Share of the codes in use that one pass may drive away from their vectors: see VQ408."""


def replaces(expiry: CodeExpiry | None, live: LiveReplacement | None) -> bool:
    """Return whether training passes replace most codes, or codes in use."""
    most = expiry is not None and expiry.replaced is not None and expiry.replaced > RUNAWAY
    return most or (live is not None and live.worst > DRIVEN)


def set_later(unmoved: UnmovedRows, ema: EmaState | None, forward: TrainForward | None) -> bool:
    """Return whether the count that these codes share is too large to be what the start has left.

    A count that gets no vector shrinks by the decay d at each of t updates, so one of the start is at most
    d^t of them all. A larger one was written later, as a revival does.
    """
    decay = (forward and forward.decay) or (ema and ema.decay)
    if unmoved.count is None or ema is None or ema.updates is None or not decay or decay >= 1:
        return False
    left = ABOVE * max(ema.total, 1.0) * decay**ema.updates
    return unmoved.count > max(left, SMOOTHED / (1 - decay))
