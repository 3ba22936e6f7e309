"""The groups of a product quantizer get the same part of their input.

## Why it matters
A product quantizer cuts each vector into as many parts as it has groups, and gives each group one. Where all
groups get the same part, the other parts are lost: their encoder outputs reach nothing, get no gradient, and
each further group only describes the same part once more.

## How to read it
With a model and data: the module around the groups gets vectors that are as many times as wide as a group's,
and the numbers that the groups get are those of fewer parts than there are groups. The comparison is exact.
Groups that each quantize the whole vector have one part, and are made so on purpose.

## Remedy
own-part: give every group its own slice.

## References
- Jegou et al. 2011, Product Quantization for Nearest Neighbor Search, section II.B: each part has a quantizer
- Baevski et al. 2020, wav2vec 2.0, arXiv:2006.11477, section 2: one code from each of G codebooks
"""

from vqdoctor.checks._words import Problems, measured, warning
from vqdoctor.core.check import Advice, Check, CheckLimits, fires, passes
from vqdoctor.core.evidence import GroupInput


def evaluate(given: GroupInput, limits: CheckLimits) -> Problems:
    """Fire on the groups after the first, where parts of the input are left over."""
    if given.group > 1 and given.parts == given.groups and given.read < given.parts:
        yield warning(
            f"The {given.groups} groups get {given.read} of the {given.parts} parts of their module's input: "
            "the other parts of the encoder's output reach no code.",
            measured("read", given.read),
            measured("parts", given.parts),
        )


CHECK = Check(
    code="VQ318",
    name="groups-share-input",
    evaluate=evaluate,
    advice=Advice(
        name="own-part",
        how="Give every group its own part of the vector.",
        code="parts = z_e.chunk(len(groups), dim=-1)\n"
        "z_q = [group(part) for group, part in zip(groups, parts)]",
    ),
    examples=(
        fires("all groups get the first part", GroupInput.healthy(read=1)),
        fires("two of four get the same part", GroupInput.healthy(read=3)),
        passes("each group has its own part", GroupInput.healthy()),
        passes("groups on the whole vector", GroupInput.healthy(parts=1, read=1)),
        passes("the first group", GroupInput.healthy(group=1, read=1)),
    ),
    doc=__doc__,
)
