"""All codes are in use, and z_e varies in a handful of directions.

## Why it matters
Perplexity and usage can be perfect in a space of four directions. More codes then cut these four finer,
and what the other directions could have told stays lost: a ceiling on the reconstruction that no larger
codebook lifts. It was published for image and audio models, whose codes keep 3 to 5 of 256 directions.

## How to read it
A direction counts if it holds over 1e-4 of the variance of z_e, or from a file alone of the codes
weighted by their EMA counts. Beside it stand the effective rank, exp of the entropy of the shares, and the
directions for 99 % of the variance, by which the published figures go.

These two cannot tell health from collapse: healthy models measured an effective rank of 2.1 to 12 and
4 to 23 directions for 99 %, and the same models trained without VQ as few. So it fires only where the
rest is empty, and it is a note. A low dimension need not cost anything either: with 128 codes, models with a
bottleneck of four directions reconstructed as well as those without. It is a warning where the model also
does its task badly beside one mean code: the encoder itself is then ruined, which z_e in place of the codes
hides. An experiment decides: retrain with autoencoder-warm-up, and see whether the directions and the
reconstruction grow.

It is silent on codes of 8 dimensions or fewer, which are narrow by design; where the part of the input that
one vector sees has hardly more directions; and behind a pure classifier, which asks for one direction
fewer than it has classes.

## Remedy
autoencoder-warm-up: trained without VQ first, the encoder keeps directions that early codes suppress. It
was published to lift 3 to 5 directions to 17 to 19. It does not widen a narrow layer: where one comes
before the codebook, that layer is the limit.

## References
- Continuous First, Discrete Later: VQ-VAEs Without Dimensional Collapse, 2026, arXiv:2605.06870
- Roy and Vetterli 2007, The effective rank: a measure of effective dimensionality
- Papyan et al. 2020, Prevalence of neural collapse during the terminal phase of training, arXiv:2008.08186
"""

from vqdoctor.checks import _harm, _usage
from vqdoctor.checks._causes import COLLAPSE
from vqdoctor.checks._words import Problems, figure, if_known, measured, percent, problem
from vqdoctor.core.check import CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import Directions, TaskMetrics, Usage
from vqdoctor.core.levels import Confidence, Severity


class Limits(CheckLimits):
    """How few directions are few, and where that is by design or in the data."""

    directions: float = limit(
        _harm.DIRECTIONS,
        "Most directions of a collapse: the published ones kept 3 to 5. Healthy models of 16 to 64 "
        "dimensions measured 12 to 31 for z_e and 10 to 24 for codes by their counts, those held out 11 to "
        "28 and 9 to 24; models with a bottleneck of four 4.",
    )
    dim: float = limit(
        _harm.NARROW_DIM,
        "Largest dimension of codes that are narrow by design, as in improved VQGAN and DAC.",
    )
    undone: float = limit(
        _harm.UNDONE,
        "Share of what one mean code gets wrong that the model still gets wrong with its own codes, above "
        "which the few directions do harm: a healthy image autoencoder measured 0.18, encoders ruined by a "
        "summed VQ loss 0.58 and by a commitment weight of 1e-6 0.36.",
    )
    input_ratio: float = limit(
        2.0,
        "Least ratio of the directions of what one vector sees of the input to those of z_e, from which the "
        "encoder and not the data is narrow.",
    )


def evaluate(
    directions: Directions, usage: Usage | None, task: TaskMetrics | None, limits: Limits
) -> Problems:
    """Fire where z_e, or bare the codes, have few directions, by neither design, data nor task."""
    if usage is not None and (_usage.few(usage) or _usage.poor(usage)):
        raise CannotJudge("few codes are in use, which says more than their directions")
    seen = directions.vector_directions
    found = directions.code_directions if seen is None else seen
    points = directions.sample_size if seen is None else directions.vectors
    if points - 1 <= limits.directions:
        raise CannotJudge(f"{points} points have no more than {points - 1} directions")
    by_data = directions.input_directions
    if found > limits.directions or directions.dim <= limits.dim or not found:
        return
    if by_data is not None and by_data < limits.input_ratio * found:
        return
    if task is not None and task.classes is not None and found >= task.classes - 1:
        return
    whose = (
        f"The {directions.sample_size} codes in use vary"
        if seen is None
        else f"{directions.sample_size} codes are in use, and z_e varies"
    )
    left = None if seen is None else _harm.undone(task)
    ruined = left is not None and left > limits.undone
    told = f", and {percent(left)} of the task is still undone" if ruined and left is not None else ""
    yield problem(
        Severity.WARNING if ruined else Severity.NOTE,
        f"{whose} in {found} of {directions.dim} directions, with an effective rank of "
        f"{figure(directions.code_rank if directions.vector_rank is None else directions.vector_rank)}: "
        f"more codes only cut these finer{told}.",
        measured("directions", found, limits.directions),
        measured("code_rank", directions.code_rank),
        measured("code_directions_99", directions.code_directions_99),
        if_known("vector_rank", directions.vector_rank),
        if_known("vector_directions_99", directions.vector_directions_99),
        if_known("input_directions", by_data, limits.input_ratio * found),
        if_known("undone", left, limits.undone),
        confidence=Confidence.LOW if by_data is None else Confidence.MEDIUM,
        decide_with="--data batch.npz" if seen is None else "",
    )


NARROW = Directions.healthy(
    code_directions=4, code_directions_99=4, code_rank=2.4, vector_directions=4, vector_directions_99=4,
    vector_rank=2.4,
)  # fmt: skip
BARE = Directions.healthy(
    source="checkpoint", vectors=0, vector_directions=None, vector_directions_99=None, vector_rank=None,
    input_directions=None,
)  # fmt: skip
RUINED = TaskMetrics.healthy(
    accuracy=None, bypass_accuracy=None, shuffled_accuracy=None, mean_code_accuracy=None,
    chance_accuracy=None, ece=None, loss=0.0706, bypass_loss=0.0705, mean_code_loss=0.1214,
)  # fmt: skip

CHECK = Check(
    code="VQ509",
    name="dimensional-collapse",
    evaluate=evaluate,
    limits=Limits(),
    remedies=("autoencoder-warm-up",),
    explained_by=(*COLLAPSE, "VQ501", "VQ502", "VQ503", "VQ504"),
    examples=(
        fires("z_e in four of 64 directions, all codes in use", NARROW, Usage.healthy()),
        fires("a file whose codes lie in four directions", BARE.replace(code_directions=4, code_rank=2.4)),
        fires("the same, and the reconstruction half undone", NARROW, Usage.healthy(), RUINED),
        passes("a healthy model of effective rank 2.5", Directions.healthy(), Usage.healthy()),
        passes("a healthy file", BARE),
        passes("codes of eight dimensions", NARROW.replace(dim=8)),
        passes("vectors that each see six directions of the input", NARROW.replace(input_directions=6)),
        passes(
            "a pure classifier of five classes",
            NARROW,
            Usage.healthy(),
            TaskMetrics.healthy(classes=5),
        ),
    ),
    doc=__doc__,
)
