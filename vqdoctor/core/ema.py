"""The memory of an exponential moving average."""


def ema_window(decay: float) -> float:
    """Return how many batches an EMA averages over: (1 + d) / (1 - d), for a decay d in [0, 1).

    The mean of this many batches of equal weight has the same variance.
    """
    return (1 + decay) / (1 - decay)
