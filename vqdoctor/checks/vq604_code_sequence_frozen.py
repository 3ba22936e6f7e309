"""The codes do not change along a sequence, or are the same sequence for every input.

## Why it matters
A sequence model on top of the codes (an HSMM, a token model) learns from the times of changes and from
the order of codes. If a clip keeps one code from end to end there are no changes; if every clip has the
same codes at the same times, they carry no information about the clip. Perplexity and dead codes look
normal in both cases: many clips bring many codes, and many positions too.

## How to read it
Only for layers whose positions lie on one axis, in time; images have two and are left out. Constant
share: sequences that are one code throughout. Same share: sequences that have a position's most frequent
code there. Dwell is the mean length of a run of equal codes, in positions; long runs are normal (a phone
lasts 5 to 10 frames), a run as long as the sequence is not. Where z_e varies inside a sequence and the
code does not, the codes are too coarse; where it does not vary either, the encoder averages over time.

## Remedy
Look for an average over time, an attention or a recurrent layer that ends up giving every position the
same summary, and a position embedding that is added before the VQ layer and drowns the input. A VQ
layer whose codes are too coarse for the changes needs more codes, or a smaller stride before it.

## References
- van den Oord et al. 2017, arXiv:1711.00937, section 4.2: codes that follow the phones of speech
- Johnson and Willsky 2013, Bayesian Nonparametric Hidden Semi-Markov Models, arXiv:1203.1365
"""

from vqdoctor.checks._causes import COLLAPSE
from vqdoctor.checks._words import Problems, figure, measured, percent, warning
from vqdoctor.core.check import Advice, CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import CodeSequences


class Limits(CheckLimits):
    """When sequences count as frozen, and how much of them it takes to say so."""

    constant_share: float = limit(
        0.5,
        "Largest share of the sequences that may be one code from end to end: with more, the typical "
        "sequence has no change at all. Working toy models measured 0.",
    )
    same_share: float = limit(
        0.95,
        "Largest share of the sequences that may agree at a position, on average. Working toy models "
        "measured 0.03 to 0.3 with 16 codes and more and 0.6 with two, codes of the position alone 0.99.",
    )
    length: float = limit(8.0, "Least length of a sequence: a shorter one may well stay with one code.")
    sequences: float = limit(
        16.0, "Least number of sequences: by chance, two agree at every position of a few; sixteen do not."
    )


def evaluate(codes: CodeSequences, limits: Limits) -> Problems:
    """Ask whether codes change along a sequence, then whether they differ between sequences."""
    if codes.length < limits.length:
        raise CannotJudge(f"sequences of {codes.length} positions are too short to call them frozen")
    if codes.sequences < limits.sequences:
        raise CannotJudge(f"{codes.sequences} sequences are too few: give {limits.sequences:.0f} or more")
    beside = (
        measured("dwell", codes.dwell, unit="positions"),
        measured("transition_entropy", codes.transition_entropy, unit="bits"),
        measured("within", codes.within),
    )
    if codes.constant_share > limits.constant_share:
        fault = "are too coarse for it" if codes.within > 0.1 else "have nothing to follow"
        yield warning(
            f"{percent(codes.constant_share)} of the sequences keep one code over all "
            f"{codes.length} positions (mean dwell {figure(codes.dwell)}); {percent(codes.within)} of the "
            f"variance of z_e lies inside sequences, so the codes {fault}.",
            measured("constant_share", codes.constant_share, limits.constant_share),
            *beside,
        )
    elif codes.same_share > limits.same_share:
        yield warning(
            f"At each position {percent(codes.same_share)} of the {codes.sequences} sequences have "
            "the same code: the codes depend on the position and not on the input.",
            measured("same_share", codes.same_share, limits.same_share),
            *beside,
        )


CHECK = Check(
    code="VQ604",
    name="code-sequence-frozen",
    evaluate=evaluate,
    limits=Limits(),
    advice=Advice(
        name="code-each-step",
        how="Quantize what belongs to a position alone: no average over time and no position embedding "
        "before the VQ layer.",
        code="z_q, indices, vq_loss = vq(encoder(x))   # [B, T, D], not its mean\n"
        "h = z_q + positions                      # positions come after it",
        names=("vq", "z_q, indices, vq_loss"),
    ),
    explained_by=(*COLLAPSE, "VQ501", "VQ502", "VQ503"),
    examples=(
        fires(
            "one code per clip, many clips",
            CodeSequences.healthy(constant_share=0.97, dwell=62.0, transition_entropy=0.01, within=0.001),
        ),
        fires(
            "the same codes in every clip", CodeSequences.healthy(same_share=0.998, transition_entropy=0.02)
        ),
        passes("codes that change", CodeSequences.healthy()),
        passes("long dwell", CodeSequences.healthy(dwell=9.0, constant_share=0.02, transition_entropy=0.5)),
    ),
    doc=__doc__,
)
