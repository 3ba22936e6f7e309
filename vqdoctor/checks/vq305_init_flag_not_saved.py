"""The first training step after loading throws the codebook away.

## Why it matters
A layer that initialises itself from the first batch must remember that it has done so. Where that
flag is a plain attribute, and not a buffer, it is lost with the process: after loading, the first
training step initialises again, over the trained codebook. Every index means something else, the
decoder has to learn anew, and usage falls off a cliff at each resume.

## How to read it
The checkpoint is loaded, and a copy is run forward in train mode without any optimizer. The number is
the median distance that a code in use travels, over the median distance of codes from their mean: 1.4
where each is replaced by another one. An EMA moves codes too (measured: 0.001 to 0.07), and moves them
as far in the passes after the first. So the check fires where the first pass moves them over half
that distance, and no later one does. A file that was saved before the codebook was initialised is
judged by VQ306, and one whose codes differ from their EMA sums by VQ303: there the first pass moves them
back.

## Remedy
save-init-flag: make the flag a buffer, so that it is saved and loaded with the codebook.

## References
- lucidrains/vector-quantize-pytorch: `initted` is a buffer
- lucidrains/vector-quantize-pytorch#102: k-means initialisation of a codebook that was loaded
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vqdoctor.checks._specimens import INITIALISATION, TRAIN_FORWARD
from vqdoctor.checks._words import figure
from vqdoctor.core.check import CannotJudge, Check, Example, limit
from vqdoctor.core.evidence import Initialisation, TrainForward
from vqdoctor.core.finding import Measurement, Problem
from vqdoctor.core.levels import Severity


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When the codebook counts as thrown away."""

    first_move: float = limit(
        0.5,
        "Longest median way of a code in the first pass, over the codes' median distance from their mean. "
        "Trained EMA codebooks measured up to 0.07, a second initialisation 1.4 to 1.7.",
    )
    later_share: float = limit(
        0.5,
        "Largest share of that move which later passes may repeat. A layer that moves as far every time "
        "replaces its codes, and has not forgotten that it was initialised.",
    )


def evaluate(forward: TrainForward, start: Initialisation | None, limits: Limits) -> Iterator[Problem]:
    """Hold the first pass against its limit and against the later ones."""
    if start is not None and start.flag is False:
        raise CannotJudge("the file says itself that the codebook is still to be initialised")
    if start is not None and start.counts_written is False and forward.writes_counts:
        raise CannotJudge("the EMA was never updated before, so its first update may move the codes far")
    first, later = forward.first_moved, forward.later_moved
    if first > limits.first_move and later <= limits.later_share * first:
        yield Problem(
            message="The first train-mode pass after loading moves a typical code by "
            f"{figure(first)} of the codebook's radius, and the passes after it by {figure(later)}: the "
            "layer initialises itself again over what was trained.",
            severity=Severity.ERROR,
            measurements=(
                Measurement(name="first_moved", value=first, limit=limits.first_move),
                Measurement(name="later_moved", value=later),
            ),
        )


CHECK = Check(
    code="VQ305",
    name="init-flag-not-saved",
    title="The first training step after loading throws the codebook away.",
    evaluate=evaluate,
    limits=Limits(),
    remedies=("save-init-flag",),
    explained_by=("VQ901",),
    meaningless_after=("VQ303",),
    examples=(
        Example(
            title="k-means runs again on the first batch",
            evidence=(TRAIN_FORWARD.replace(first_moved=1.31), INITIALISATION),
            fires=True,
        ),
        Example(title="an EMA at work", evidence=(TRAIN_FORWARD, INITIALISATION), fires=False),
        Example(
            title="codes that are replaced at every step",
            evidence=(TRAIN_FORWARD.replace(first_moved=1.2, later_moved=1.1), INITIALISATION),
            fires=False,
        ),
    ),
    doc=__doc__,
)
