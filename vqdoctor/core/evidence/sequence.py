"""The sequence stage behind a VQ layer: clusters of its codes, and hidden states that last."""

from vqdoctor.core.evidence.base import Evidence


class SequenceStage(Evidence):
    """A mixture of clusters (HDP) and a hidden semi-Markov model (HSMM) on the codes, by the file alone.

    Sample size: the codes, K. None where the file has no such stage, or does not tell.

    Attributes:
        clusters: clusters that the mixture hands on, C.
        clusters_used: those with more than 0.1/C of the codes' assignments.
        told_apart: exp of the information between a code and its cluster, in clusters: 1 where all codes have
            the same assignments, at most the smaller of C and the codebook's perplexity. Codes count by their
            EMA counts; all alike where there are none.
        spread: mean distance of a code's assignments from the mean assignments, as half the sum of the
            differences: 0 where all codes look the same to the stage, near 1 where each has a cluster.
        code_perplexity: perplexity of the codes by which these two are weighed.
        states: hidden states, S.
        law: the law of their durations: "negative binomial", "poisson" or "gaussian"; "" without states.
        durations: expected duration of each state, in steps of the codes.
        states_used: those with more than 0.1/S of the time, by fixed transitions and the expected durations
            alone; None where the transitions depend on the input.
    """

    clusters: int | None = None
    clusters_used: int | None = None
    told_apart: float | None = None
    spread: float | None = None
    code_perplexity: float
    states: int | None = None
    law: str = ""
    durations: tuple[float, ...] = ()
    states_used: int | None = None


SequenceStage.HEALTHY = SequenceStage(
    layer="vq", source="checkpoint", sample_size=64, clusters=24, clusters_used=17, told_apart=6.5,
    spread=0.79, code_perplexity=55.8, states=7, law="negative binomial",
    durations=(20.9, 18.9, 17.9, 19.0, 21.2, 17.3, 19.3), states_used=7,
)  # fmt: skip


class StepLabels(Evidence):
    """How often each step of a sequence is named right, by the model and by its code alone.

    By its code alone is a table: the label that each code had most often on the train split. Sample size:
    sequences of the val split.

    Attributes:
        steps: steps in a sequence, each with a label.
        accuracy: of the whole model.
        code_accuracy: of the table.
        chance_accuracy: share of the most frequent label.
    """

    steps: int
    accuracy: float
    code_accuracy: float
    chance_accuracy: float


StepLabels.HEALTHY = StepLabels(
    layer="vq", source="batch", sample_size=80, steps=80, accuracy=0.68, code_accuracy=0.52,
    chance_accuracy=0.18,
)  # fmt: skip
