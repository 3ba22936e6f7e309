"""Training and validation data are on different scales.

## Why it matters
A model that was trained on inputs of one scale gives nonsense on those of another. All figures that are taken
on the validation data (usage, accuracy, the task loss) then show this and not the codebook.

## How to read it
The size (root mean square) of the numbers that the first layer with weights gets, on the first batches of
both splits. A normalisation that one split lacks is a factor of 255, or of the standard deviation.

## Remedy
same-preprocessing: one function prepares the samples of both splits.

## References
- Measured: the splits of healthy models of digits, sequences, waves and tables differ by at most 4 %
"""

from vqdoctor.checks._words import Problems, error, figure, measured
from vqdoctor.core.check import Advice, CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import FirstInput


class Limits(CheckLimits):
    """When the scales count as different."""

    factor: float = limit(
        3.0,
        "Least factor between the sizes of the two splits. Random halves of one data set differ by a few "
        "percent; a missing division by 255 is a factor of 255, a missing standardisation the data's own.",
    )


def evaluate(first: FirstInput, limits: Limits) -> Problems:
    """Compare the sizes."""
    if first.val_rms is None or not first.val_rms or not first.rms:
        raise CannotJudge("the task serves no validation data, or one of the splits is all zero")
    factor = max(first.rms / first.val_rms, first.val_rms / first.rms)
    if factor >= limits.factor:
        yield error(
            f"The first layer ({first.module}) gets numbers of size {figure(first.rms)} in training and "
            f"{figure(first.val_rms)} in validation: the splits are prepared differently.",
            measured("factor", factor, limits.factor),
            measured("train_size", first.rms),
            measured("val_size", first.val_rms),
        )


CHECK = Check(
    code="VQ315",
    name="splits-on-different-scales",
    evaluate=evaluate,
    limits=Limits(),
    scope="model",
    advice=Advice(
        name="same-preprocessing",
        how="Prepare the samples of both splits by one function, with the mean and standard deviation of the "
        "training data.",
        code="mean, std = x_train.mean(), x_train.std()\n"
        "x_train, x_val = (x_train - mean) / std, (x_val - mean) / std",
        in_source=True,
    ),
    examples=(
        fires("validation images of 0 to 255", FirstInput.healthy(val_rms=124.0)),
        fires("training images of 0 to 255", FirstInput.healthy(rms=124.0, largest=255.0)),
        passes("healthy", FirstInput.healthy()),
    ),
    doc=__doc__,
)
