"""Training passes overwrite codes that are in use.

## Why it matters
A revival is meant for codes that no vector chooses. One that also overwrites codes in use destroys what these
have learned: no index means the same thing for long, the decoder never learns a code, and usage looks perfect
all the while. The usual slip is a threshold in other units than the usage, as 1 beside shares that sum to 1:
then all codes are replaced each time.

## How to read it
The model goes through a few train-mode passes without optimizer steps, and the layer alone through up to 64
more, since a revival may come every ten or fifty steps. A code in use is one that a pass chooses at least
half as often as an even usage would. It counts as driven away where it ends further from the mean of the
vectors that just chose it than it was, by half the distance of a typical code from the others: an EMA moves
codes towards that mean, and a revival of dead codes leaves them where they are. A code in use lives for as
many passes as it takes, on average, until it is driven away.

## Remedy
revive-unused-only: compare the usage with a tenth of an even usage, in the same units.

## References
- Dhariwal et al. 2020, Jukebox, arXiv:2005.00341: codes under a threshold of mean usage are restarted
"""

from vqdoctor.checks import _harm
from vqdoctor.checks._renewed import DRIVEN
from vqdoctor.checks._words import Problems, figure, measured, percent, problem
from vqdoctor.core.check import Advice, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import LiveReplacement, TaskMetrics


class Limits(CheckLimits):
    """How many codes in use a pass may drive away, and how long they live."""

    worst: float = limit(
        DRIVEN,
        "Largest share of the codes in use that one pass may drive away. Sound layers measured 0, with and "
        "without a revival; one with a threshold in other units 0.9.",
    )
    lifetime: float = limit(
        200.0,
        "Least passes for which a code in use lives: the memory of an EMA with decay 0.99, of which a code "
        "is to be the mean. The layer with the wrong units measured 14.",
    )


def evaluate(live: LiveReplacement, metrics: TaskMetrics | None, limits: Limits) -> Problems:
    """Compare the worst pass and the mean life of a code in use with their limits."""
    lifetime = 1 / live.mean if live.mean else float("inf")
    if live.worst <= limits.worst or lifetime >= limits.lifetime:
        return
    yield problem(
        _harm.severity(metrics, acts=True),
        f"A training pass drives {percent(live.worst)} of the codes in use away from the vectors that chose "
        f"them, and a code in use lives for {figure(lifetime)} passes: a revival takes codes that are alive.",
        measured("worst", live.worst, limits.worst),
        measured("lifetime", lifetime, limits.lifetime, unit="passes"),
    )


CHECK = Check(
    code="VQ408",
    name="live-codes-replaced",
    evaluate=evaluate,
    limits=Limits(),
    advice=Advice(
        name="revive-unused-only",
        how="Replace a code only where its usage is under a tenth of an even one, in the units of the usage.",
        code="dead = usage < 0.1 * usage.mean()   # in its own units, counts or shares",
        setting=("dead codes", "0.1 * usage.mean()"),
    ),
    explained_by=("VQ901", "VQ309", "VQ402"),
    examples=(
        fires("all codes are overwritten every ten steps", LiveReplacement.healthy(worst=0.9, mean=0.073)),
        passes("an EMA with a revival of dead codes", LiveReplacement.healthy()),
        passes("codes that are placed once", LiveReplacement.healthy(worst=0.9, mean=0.004)),
        passes("a few codes that a batch happens to choose", LiveReplacement.healthy(worst=0.1, mean=0.02)),
    ),
    doc=__doc__,
)
