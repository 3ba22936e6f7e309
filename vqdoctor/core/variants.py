"""The variants of a finished ablation, whoever ran it: which of them collapsed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

from vqdoctor.core.exit_codes import ExitCode
from vqdoctor.core.frozen import frozen

State = Literal["collapsed", "low", "in use", "unknown", "without VQ"]
ONE_CODE = 2.0
"""Perplexity under which a codebook is collapsed, whatever its size: the equivalent of a single code."""
EXPECTED = 50.0
"""Least perplexity that the recipe expects of 256 or 512 codes, where the results do not say how many."""
EXPECTED_SHARE = 0.2
"""The same as a share of K: the limit of VQ501."""
_BEGINNING = 4096
"""Bytes of a file that are looked at for the name that every index has."""
MOST_SHARE = 1.5
"""Accuracy above which the file has percentages: no rounding takes a share so far above 1."""
LOST = 0.05
"""Accuracy behind the best variant from which a low perplexity counts as a collapse: 5 points."""
FIGURES = (
    "accuracy", "loss", "perplexity", "ece", "inference_time_ms_p50", "inference_time_ms_p95",
    "num_parameters", "memory_mb", "convergence_epoch", "pi90_coverage", "avg_pred_set_size",
)  # fmt: skip
"""The figures of a variant that are read, by their names in the file."""


@frozen
class Variant:
    """One configuration of an ablation.

    Attributes:
        name: as the file names it.
        figures: figure to value, names of `FIGURES`; those that are unknown are left out.
        num_codes: K of its smallest-perplexity layer; None where the file does not say.
        state: the judgement on its codebook.
        reason: the judgement in a few words.
    """

    derived: ClassVar = ()
    name: str
    figures: Mapping[str, float]
    num_codes: int | None = None
    state: State = "unknown"
    reason: str = ""


@frozen
class Variants:
    """All variants of one file, judged.

    Attributes:
        path: the file, as the user named it.
        variants: in the order of the file.
    """

    path: str
    variants: tuple[Variant, ...]

    @property
    def collapsed(self) -> tuple[Variant, ...]:
        """The variants whose codebook collapsed."""
        return tuple(variant for variant in self.variants if variant.state == "collapsed")

    def exit_code(self, *, fails: bool) -> ExitCode:
        """Return the exit code of the file; `fails` is whether a collapse fails the run."""
        if self.collapsed and fails:
            return ExitCode.FINDINGS
        return ExitCode.OK if self.known else ExitCode.INCOMPLETE

    @property
    def known(self) -> bool:
        """Whether the perplexity of any variant is known."""
        return any("perplexity" in variant.figures for variant in self.variants)


def is_results(path: Path) -> bool:
    """Return whether a file is taken for results, and not for the index of a sharded checkpoint."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    with contextlib.suppress(OSError), path.open("rb") as file:
        return b'"weight_map"' not in file.read(_BEGINNING)
    return True


def judged(path: str, variants: Sequence[Variant]) -> Variants:
    """Return the variants with their judgements; accuracies in percent become shares.

    A perplexity under 2 is a collapse. One under a fifth of K, or under 50 where K is unknown, is low, and a
    collapse where the accuracy is 5 points or more behind the best variant. A perplexity of 0 is a model
    without VQ, as some frameworks write it.
    """
    if any(variant.figures.get("accuracy", 0.0) > MOST_SHARE for variant in variants):
        variants = [_as_share(variant) for variant in variants]
    best = max((v.figures["accuracy"] for v in variants if "accuracy" in v.figures), default=None)
    return Variants(path=path, variants=tuple(_judged(variant, best) for variant in variants))


def _as_share(variant: Variant) -> Variant:
    figures = dict(variant.figures)
    if "accuracy" in figures:
        figures["accuracy"] /= 100
    return replace(variant, figures=figures)


def _judged(variant: Variant, best: float | None) -> Variant:
    perplexity, accuracy = variant.figures.get("perplexity"), variant.figures.get("accuracy")
    state: State
    behind = None if best is None or accuracy is None else best - accuracy
    if perplexity is None:
        state, reason = "unknown", "no perplexity is given"
    elif perplexity == 0:
        state, reason = "without VQ", "its perplexity is 0"
    else:
        expected = EXPECTED if variant.num_codes is None else EXPECTED_SHARE * variant.num_codes
        state, reason = "in use", f"perplexity {perplexity:.4g}, expected at least {expected:.4g}"
        if perplexity < ONE_CODE:
            state = "collapsed"
        elif perplexity < expected:
            state = "collapsed" if behind is not None and behind >= LOST else "low"
    if behind is not None and behind >= LOST:
        reason += f"; accuracy {100 * behind:.1f} points behind the best"
    return Variant(
        name=variant.name, figures=variant.figures, num_codes=variant.num_codes, state=state, reason=reason
    )
