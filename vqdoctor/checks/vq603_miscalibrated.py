"""The model's confidence does not match how often it is right.

## Why it matters
Quantizing takes away what makes an input doubtful: all inputs of one code look alike to the head. A
model with a poor codebook is then sure of itself where it should not be, and a threshold on its
confidence keeps the wrong answers.

## How to read it
Expected calibration error: predictions are put into 15 bins by confidence, and the gaps between mean
confidence and accuracy are averaged, weighted by the bins' shares. Over 0.05 is a note: over-confidence
mostly comes from plain overfitting, and many models are never asked for a probability. It is a warning,
and never more, where the codes also cost accuracy, since both then have one source. Under 100 samples
the number is mostly noise. Where the report names a cause, fix that first. `--max-ece` makes a
threshold of it in `gate` and `fix --retrain`.

## Remedy
A temperature changes the confidences and not the predicted classes. Fit it on data that neither
training nor the reported figures use. It cures the symptom: where the report names a cause, fix that
first. `fix --retrain` does so at its end (`calibrate`), on the split that stopped the training.

## References
- Guo et al. 2017, On Calibration of Modern Neural Networks, arXiv:1706.04599
- Naeini et al. 2015, Obtaining Well Calibrated Probabilities Using Bayesian Binning
"""

from vqdoctor.checks._causes import COLLAPSE
from vqdoctor.checks._words import Problems, figure, measured, note, percent, warning
from vqdoctor.core.check import CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import TaskMetrics


class Limits(CheckLimits):
    """How far confidence and accuracy may be apart."""

    ece: float = limit(
        0.05, "Largest expected calibration error: five points between confidence and accuracy on average."
    )
    samples: float = limit(
        100.0,
        "Least number of samples. With fewer, 15 bins hold under 7 each, and even a perfectly calibrated "
        "model measures more than the limit.",
    )
    harm: float = limit(
        0.05,
        "Loss of accuracy against the vectors that the codes replace, from which on it is a warning. A "
        "retraining may lose 1.5 points; over three times as much is beyond the noise of 397 samples.",
    )


def evaluate(metrics: TaskMetrics, limits: Limits) -> Problems:
    """Compare the calibration error with its limit, if there are labels and samples enough."""
    if metrics.ece is None:
        raise CannotJudge("without labels and class scores there is no calibration error")
    if metrics.sample_size < limits.samples:
        raise CannotJudge(f"{metrics.sample_size} samples are too few: give {figure(limits.samples)}")
    if metrics.ece > limits.ece:
        harm = 0.0
        if metrics.accuracy is not None and metrics.bypass_accuracy is not None:
            harm = metrics.bypass_accuracy - metrics.accuracy
        yield (warning if harm > limits.harm else note)(
            f"The model's confidence is off by {percent(metrics.ece)} on average (expected "
            f"calibration error, {metrics.sample_size:,} samples).",
            measured("ece", metrics.ece, limits.ece),
            measured("accuracy_lost", harm, limits.harm),
        )


CHECK = Check(
    code="VQ603",
    name="miscalibrated",
    evaluate=evaluate,
    limits=Limits(),
    scope="model",
    remedies=("calibrate",),
    explained_by=(*COLLAPSE, "VQ501", "VQ502", "VQ503"),
    examples=(
        fires("over-confident", TaskMetrics.healthy(ece=0.114)),
        fires("over-confident, and the codes cost accuracy", TaskMetrics.healthy(ece=0.114, accuracy=0.7)),
        passes("calibrated", TaskMetrics.healthy()),
    ),
    doc=__doc__,
)
