"""The sequence stage behind the codes loses what they carry.

## Why it matters
A mixture of clusters (HDP) and a hidden semi-Markov model (HSMM) on top of the codes pass on less than they
get. Where all codes have the same assignments, the states have a constant input, and the model does its
task no better than a guess. The codebook may be in perfect health: its perplexity does not show it.

## How to read it
With a task whose sequences have a label at each step: the accuracy of the model beside that of a table,
which names each step by the label that its code had most often in training. The table sees one code and no
neighbours, so a sequence stage that works beats it. The share of the table's skill (accuracy above chance)
that the model lacks is what the stage loses, together with the classifier behind it.

From the file alone: the assignments of the codes to the clusters of the mixture. Their spread is the mean
distance of a code's assignments from the mean of all, 0 where the stage cannot tell any two codes apart.
Later layers may amplify small differences, so this is circumstantial, and a task decides. Expected
durations are shown and not judged: the right ones are unknown. A codebook of perplexity 1 gives the stage a
constant input: then the collapse is the cause, and this is not judged. Where a table beats the model the
codes are good enough, whatever else is wrong with them, so this is a cause of its own.

## Remedy
Train the model with each stage left out in turn, to see which one costs the accuracy. In a mixture, look at
the temperature of the assignments (log-probabilities of D dimensions spread with the root of D, and so the
temperature should not exceed that by far), at cluster centres that start far from the codes, and at
variances that grow without limit. In an HSMM, look at durations as long as a sequence.

## References
- Teh et al. 2006, Hierarchical Dirichlet Processes, doi:10.1198/016214506000000302
- Johnson and Willsky 2013, Bayesian Nonparametric Hidden Semi-Markov Models, arXiv:1203.1365
"""

import math

from vqdoctor.checks import _harm
from vqdoctor.checks._causes import COLLAPSE
from vqdoctor.checks._words import Problems, error, figure, measured, percent, warning
from vqdoctor.core.check import Advice, CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import SequenceStage, StepLabels, Usage
from vqdoctor.core.levels import Confidence
from vqdoctor.core.skill import LOST


class Limits(CheckLimits):
    """How much of the codes must come through."""

    lost_share: float = limit(
        LOST,
        "Largest share of the skill of a table of codes that the model may lack, as VQ605. Sound chains beat "
        "the table by 0.01 to 0.15; with a temperature of 300 they lacked 0.87 and all of it.",
    )
    half: float = limit(0.5, "Share of that skill from which on it is an error: more is lost than kept.")
    errors: float = limit(
        _harm.ERRORS,
        "Least size of the gap in standard errors of a difference of two accuracies, with each sequence "
        "counted once: its steps are alike.",
    )
    skill: float = limit(
        0.1, "Least accuracy of the table above chance, over its largest possible value, for it to be lost."
    )
    spread: float = limit(
        0.05,
        "Least spread of the assignments: that of one cluster that takes 97 % of the codes' use. Sound "
        "chains measured 0.5 to 0.8 (0.39 with two clusters), one with a temperature of 300, as good as a "
        "guess, 0.004; another one, which still had 0.1, is found by its task alone.",
    )
    perplexity: float = limit(
        2.0, "Least perplexity of the codes: of one code and a few strays nothing can be lost."
    )


def evaluate(
    stage: SequenceStage, labels: StepLabels | None, usage: Usage | None, limits: Limits
) -> Problems:
    """Compare the model with a table of its codes, else look at the codes' assignments in the file."""
    perplexity = stage.code_perplexity if usage is None else usage.perplexity
    if perplexity < limits.perplexity:
        raise CannotJudge(
            f"a codebook of perplexity {figure(perplexity)} gives the sequence stage a constant input"
        )
    if labels is not None:
        yield from _by_labels(labels, limits)
    elif stage.spread is None:
        raise CannotJudge("the file alone does not tell what the hidden states make of the codes")
    elif stage.spread < limits.spread:
        yield warning(
            f"All codes look alike to the {stage.clusters} clusters of the sequence stage: a code's "
            f"assignments differ by {percent(stage.spread)} from the mean of all.",
            measured("spread", stage.spread, limits.spread),
            measured("perplexity", perplexity),
            confidence=Confidence.MEDIUM,
            decide_with="--data batch.npz",
        )


def _by_labels(labels: StepLabels, limits: Limits) -> Problems:
    skill = labels.code_accuracy - labels.chance_accuracy
    if skill < limits.skill * (1 - labels.chance_accuracy):
        raise CannotJudge("the codes alone tell hardly more about the labels than chance")
    gap = labels.code_accuracy - labels.accuracy
    variance = sum(p * (1 - p) for p in (labels.accuracy, labels.code_accuracy)) / max(labels.sample_size, 1)
    if gap <= limits.lost_share * skill or gap <= limits.errors * math.sqrt(variance):
        return
    tell = error if gap > limits.half * skill else warning
    yield tell(
        f"The model names {percent(labels.accuracy)} of the steps right, a table of the codes alone "
        f"{percent(labels.code_accuracy)}: the sequence stage loses what the codes carry.",
        measured("lost_share", gap / skill, limits.lost_share),
        measured("accuracy", labels.accuracy),
        measured("code_accuracy", labels.code_accuracy),
        explains=("VQ607",),
    )


CHECK = Check(
    code="VQ608",
    name="sequence-stage-loses-codes",
    evaluate=evaluate,
    limits=Limits(),
    advice=Advice(
        name="sharper-assignments",
        how="Train without the HDP and without the HSMM stage, to see which one costs the accuracy. Lower "
        "the temperature of the assignments, and start the centres among the codes.",
        code="temperature = math.sqrt(dim)   # not far above it\n"
        "assignments = softmax(log_joint / temperature, dim=-1)",
    ),
    explained_by=(*COLLAPSE, "VQ501", "VQ502", "VQ503", "VQ504"),
    examples=(
        fires(
            "a table of the codes beats the model",
            SequenceStage.healthy(),
            StepLabels.healthy(accuracy=0.13, code_accuracy=0.47),
        ),
        fires(
            "a warning where some is left",
            SequenceStage.healthy(),
            StepLabels.healthy(sample_size=4_000, accuracy=0.41, code_accuracy=0.52),
        ),
        fires("assignments that hardly differ", SequenceStage.healthy(spread=0.004, told_apart=1.0002)),
        passes("healthy", SequenceStage.healthy(), StepLabels.healthy()),
        passes("healthy, by the file alone", SequenceStage.healthy()),
        passes(
            "flat assignments, and the task is done", SequenceStage.healthy(spread=0.01), StepLabels.healthy()
        ),
        passes(
            "a gap that 20 sequences cannot tell from luck",
            SequenceStage.healthy(),
            StepLabels.healthy(sample_size=20, accuracy=0.4),
        ),
    ),
    doc=__doc__,
)
