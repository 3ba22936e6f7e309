"""The trace of a training: one line of JSON for each VQ layer and interval, and for each event."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar

from vqdoctor.core.frozen import frozen
from vqdoctor.core.levels import Severity

SCHEMA = 1
"""Version of the lines of a trace."""


@frozen
class TraceLine:
    """One line of a trace; `kind` says which.

    Attributes:
        step: optimizer steps done.
    """

    registry: ClassVar[dict[str, type[TraceLine]]] = {}
    kind: ClassVar[str] = ""
    step: int

    def __init_subclass__(cls) -> None:
        """Register the kind under its lower-case name."""
        cls.kind = cls.__name__.lower()
        TraceLine.registry[cls.kind] = cls


@frozen
class TracedLayer:
    """A VQ layer of the trace: its path in the model, its number of codes K and their dimension D."""

    name: str
    num_codes: int
    dim: int


@frozen
class Start(TraceLine):
    """The start of a training, or of its next part: earlier lines of later steps are void.

    Attributes:
        schema: version of the lines.
        version: version of the vqdoctor that wrote them.
        every: steps of an interval.
        layers: the VQ layers.
    """

    schema: int
    version: str
    every: int
    layers: tuple[TracedLayer, ...]


@frozen
class Interval(TraceLine):
    """One VQ layer at the end of one interval. None is unknown.

    Attributes:
        layer: the layer.
        vectors: vectors of the interval's last steps that the usage rests on.
        perplexity: of the codes that they chose, in codes; corrected for the sample size.
        perplexity_low: lower end of its 95 % interval.
        perplexity_high: upper end of its 95 % interval.
        used: codes that were chosen.
        active: codes above 0.1 / K of the usage.
        max_share: share of the most used code.
        counts_perplexity: perplexity of the EMA counts.
        counts_active: codes above 0.1 / K of the EMA counts.
        code_norm: root mean square length of the codes.
        z_e_norm: root mean square length of the z_e.
        code_move: root mean square way of the codes in the interval's last step, over the spread of z_e.
        z_e_move: way of the mean z_e since the interval before, a step, over the spread of z_e.
        revived: codes that jumped since the interval before, as a revival moves them.
        error: mean squared quantization error over the variance of z_e.
        gradient: norm of the total loss's gradient at z_e over that at z_q; None without a gradient at z_q.
        task_loss: the task loss.
        vq_loss: the VQ loss, unweighted.
        level_correlation: mean cosine between the z_q of this level and those of the level before it.
    """

    layer: str
    vectors: int
    perplexity: float | None = None
    perplexity_low: float | None = None
    perplexity_high: float | None = None
    used: int | None = None
    active: int | None = None
    max_share: float | None = None
    counts_perplexity: float | None = None
    counts_active: int | None = None
    code_norm: float | None = None
    z_e_norm: float | None = None
    code_move: float | None = None
    z_e_move: float | None = None
    revived: int | None = None
    error: float | None = None
    gradient: float | None = None
    task_loss: float | None = None
    vq_loss: float | None = None
    level_correlation: float | None = None

    def scalars(self) -> dict[str, float]:
        """Return the known figures by the names of a logger, "vq/LAYER/FIGURE"."""
        figures = {name: value for name, value in vars(self).items() if name not in ("step", "layer")}
        return {f"vq/{self.layer}/{name}": value for name, value in figures.items() if value is not None}


@frozen
class Event(TraceLine):
    """A finding that the monitor told, or a note.

    Attributes:
        layer: the VQ layer; None for the whole model.
        code: the check's code; "" for a note.
        severity: the finding's.
        message: the text.
        since: the step at whose interval it began.
        remedies: what helps, the best first.
    """

    layer: str | None
    code: str
    severity: Severity
    message: str
    since: int
    remedies: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """The finding's identity, as `Finding.fingerprint`."""
        return f"{self.code}:{self.layer or ''}"


@frozen
class End(TraceLine):
    """The monitor stopped: the training is over, or was stopped by an error that Python saw."""


@frozen
class RunTrace:
    """A whole trace, in the order of its steps.

    Attributes:
        start: the newest start.
        intervals: a line for each layer and interval.
        events: findings and notes.
        ended: whether the monitor has stopped, and no other has gone on since.
    """

    start: Start
    intervals: tuple[Interval, ...] = field(default=())
    events: tuple[Event, ...] = field(default=())
    ended: bool = False

    def of(self, layer: str) -> list[Interval]:
        """Return the intervals of one layer."""
        return [row for row in self.intervals if row.layer == layer]
