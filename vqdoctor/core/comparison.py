"""Checkpoints of one training, or any others, side by side: plain values."""

from __future__ import annotations

from vqdoctor.core.frozen import frozen
from vqdoctor.core.levels import Severity
from vqdoctor.core.report import Verdict

SCHEMA = 1


@frozen
class MovedCode:
    """A code that moved since the reference.

    Attributes:
        code: its number.
        way: how far, over the distance of the reference's codes from their mean.
    """

    code: int
    way: float


@frozen
class ComparedLayer:
    """One VQ layer of one checkpoint. None is unknown.

    Attributes:
        path: the checkpoint, or the saved report.
        rank: the number of its process, where each of several has saved a file of its own.
        step: optimizer steps that it records.
        layer: the layer.
        num_codes: K.
        verdict: of the whole checkpoint.
        source: the origin of the usage: "batch" or "checkpoint".
        perplexity: in codes.
        perplexity_low: lower end of its 95 % interval.
        perplexity_high: upper end of its 95 % interval.
        active: codes above 0.1 / K of the usage.
        dead: the others.
        max_share: share of the most used code.
        moved: root mean square way of the codes since the checkpoint before, over their distance from their
            mean there.
        moved_codes: codes that moved at all.
        from_reference: the same way since the reference.
        moved_from_reference: codes that moved at all since the reference.
        farthest: the codes that moved farthest since the reference, the farthest first.
        finding: code of the first finding on the layer or on the whole model.
    """

    path: str
    step: int | None
    layer: str
    num_codes: int
    verdict: Verdict
    source: str | None = None
    perplexity: float | None = None
    perplexity_low: float | None = None
    perplexity_high: float | None = None
    active: int | None = None
    dead: int | None = None
    max_share: float | None = None
    moved: float | None = None
    moved_codes: int | None = None
    from_reference: float | None = None
    moved_from_reference: int | None = None
    farthest: tuple[MovedCode, ...] = ()
    finding: str | None = None
    rank: int | None = None


@frozen
class Began:
    """A finding over the checkpoints.

    Attributes:
        code: of its check.
        name: of its check.
        layer: the layer, or None for the whole model.
        severity: the worst.
        path: the first checkpoint that has it.
        step: the optimizer steps there; None if unknown.
        last: the last checkpoint that has it.
        last_step: the optimizer steps there; None if unknown.
        root: whether it is a cause there, and no symptom of another finding.
    """

    code: str
    name: str
    layer: str | None
    severity: Severity
    path: str
    step: int | None
    last: str
    last_step: int | None
    root: bool


@frozen
class Ranks:
    """The files that several processes have saved of one checkpoint.

    Attributes:
        path: their path, with # in place of the number of the process.
        step: optimizer steps that they record; None if unknown.
        layer: the layer.
        files: how many there are.
        differing: how many have another codebook than the first.
        codes: codes that are others there, at most.
        worst: median distance of the codes to the first file's, over their spread, at most.
    """

    path: str
    step: int | None
    layer: str
    files: int
    differing: int = 0
    codes: int = 0
    worst: float = 0.0


@frozen
class Comparison:
    """Checkpoints side by side.

    Attributes:
        schema: version of the JSON.
        version: version of the vqdoctor that made it.
        reference: the checkpoint that all are compared with as well; None without one.
        rows: one for each checkpoint and layer, in the order of the steps.
        began: the findings, warnings and errors, in the order in which they came; causes before symptoms.
        ranks: where processes have saved files of their own, how their codebooks agree.
        errors: frozen codebooks that moved, one line each.
    """

    schema: int = SCHEMA
    version: str
    reference: str | None
    rows: tuple[ComparedLayer, ...]
    began: tuple[Began, ...]
    errors: tuple[str, ...] = ()
    ranks: tuple[Ranks, ...] = ()
