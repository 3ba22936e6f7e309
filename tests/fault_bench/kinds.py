"""The faults in general terms: how severe, on whose quantizers, and by which names an expert may call each.

The answers are written from what a fault is, before anything is examined. A second name is accepted where an
expert would call the same thing by it, and would do the same about it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fault_bench.faults import FAULTS, LEFT_ALONE, PLAIN, Fault
from fault_bench.host import IMPLEMENTATIONS

Names = frozenset[str]

ALL = frozenset(IMPLEMENTATIONS)
EMA = frozenset(name for name, i in IMPLEMENTATIONS.items() if i.kind == "ema")
BY_GRADIENT = frozenset(name for name, i in IMPLEMENTATIONS.items() if i.kind == "gradient")
WITHOUT_CODES = frozenset(name for name, i in IMPLEMENTATIONS.items() if i.kind == "none")
BY_ANGLE = frozenset({"VectorQuantize-cosine", "DAC"})
NOISY = frozenset({"NSVQ", "wav2vec 2.0 Gumbel"})
"""Layers whose own training differs from their evaluation."""
STYLES = frozenset(name for name in ALL if name.endswith(" style"))
FROM_ZERO = STYLES - {"own style"}
"""Layers whose EMA counts start from zero: codes that nothing chooses blow up, a fault of its own."""
COMMITTED = frozenset(n for n, i in IMPLEMENTATIONS.items() if i.has_loss) - {
    "LFQ",
    "wav2vec 2.0 Gumbel",
}
"""Layers whose VQ loss is the distance of z_e and codes."""
LEVELS = frozenset({"ResidualVQ", "GroupedResidualVQ", "residual stack", "DAC"})


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of fault, as the bench draws it.

    Attributes:
        fault: what is wrong, and the code that names it.
        fits: implementations that can have it; None is where its switch is their own, or everywhere.
        severities: settings beside the switch, from mild to severe.
        accepts: codes that are right as well.
        accepts_bare: codes that are right as well where there is a file alone.
        told: implementations whose file alone tells it; None is what the fault says.
        data: data sets on which it is a fault; empty is all.
    """

    fault: Fault
    fits: Names | None = None
    severities: tuple[Mapping[str, Any], ...] = ({},)
    accepts: Names = frozenset()
    accepts_bare: Names = frozenset()
    told: Names | None = None
    data: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.fault.name

    @property
    def codes(self) -> Names:
        """Codes that name it where a model runs."""
        return self.accepts | {self.fault.code}

    def implementations(self) -> Names:
        changed = set(self.fault.switch) | set(self.fault.base)
        if self.fits is not None:
            names = self.fits
        else:
            own = set(self.fault.switch) & set().union(*(i.switches for i in IMPLEMENTATIONS.values()))
            names = frozenset(name for name, i in IMPLEMENTATIONS.items() if own <= i.switches)
        return frozenset(name for name in names if not changed & IMPLEMENTATIONS[name].lacks)

    def told_by_file(self, implementation: str) -> bool:
        return self.fault.told_by_file(implementation) if self.told is None else implementation in self.told

    def is_named(self, code: str, *, bare: bool) -> bool:
        """Return whether a finding with this code names the fault."""
        return code in self.codes or (bare and code in self.accepts_bare)


@dataclass(frozen=True, kw_only=True)
class _Span:
    """What a kind adds to a fault of the table."""

    fits: Iterable[str] | None = None
    severities: tuple[Mapping[str, Any], ...] = ({},)
    accepts: Iterable[str] = ()
    accepts_bare: Iterable[str] = ()
    told: Iterable[str] | None = None
    data: tuple[str, ...] = ()


def _times(name: str, *values: Any) -> tuple[Mapping[str, Any], ...]:
    return tuple({name: value} for value in values)


_PLACED = (EMA | BY_GRADIENT) - BY_ANGLE - FROM_ZERO
"""Layers whose random start leaves codes where no data is, at an ordinary size."""

_DIVIDES = STYLES - {"bshall style"} | {"rosinality", "zalando"}
"""Layers of which the file shows by what they divide; bshall's stores what it divided by as its counts."""

_SPANS: Mapping[str, _Span] = {
    # no file tells who writes a buffer; that a codebook lacks its gradient, an optimizer remembers
    "codebook never moved": _Span(
        fits=ALL - STYLES - WITHOUT_CODES - BY_ANGLE - {"NSVQ", "SimVQ", "residual stack"}
        - {"GroupedResidualVQ", "VectorQuantize-gradient"},
        told=("taming", "diffusers", "Chameleon"),
        accepts_bare=("VQ306",),
    ),
    "cut along the wrong axis": _Span(fits=ALL),
    # a file shows that the encoder got no gradient, and not where it is cut
    "detached after the layer": _Span(fits=ALL, accepts_bare=("VQ101",)),
    "gradients that are not finite": _Span(fits=ALL),
    "lookup in bfloat16": _Span(
        fits=("VectorQuantize", "ResidualVQ", "taming", "rosinality", "zalando", "Chameleon")
    ),
    "VQ loss weighs 100": _Span(fits=COMMITTED, severities=_times("vq_weight", 100.0, 300.0, 1000.0)),
    "VQ loss weighs 0.00001": _Span(
        fits=("taming", "diffusers", "Chameleon", "VectorQuantize-gradient"),
        severities=_times("vq_weight", 1e-4, 1e-5, 1e-6),
    ),
    "beta on the codebook's term": _Span(fits=("taming", "residual stack", "diffusers")),
    "VQ loss summed": _Span(fits=COMMITTED, severities=_times("dim", 16, 32, 64)),
    "VQ loss not added": _Span(fits=COMMITTED),
    "VQ loss without a gradient": _Span(
        fits=(STYLES | {"VectorQuantize", "taming", "rosinality", "Mimi"}),
    ),
    # where a codebook lies far off because no data ever placed it, both names say what to do: place it
    "codebook far from z_e": _Span(
        fits=_PLACED, severities=_times("offset", 3.0, 6.0, 10.0), accepts=("VQ313",)
    ),
    "slow EMA": _Span(
        fits=EMA - FROM_ZERO, severities=_times("decay", 0.999, 0.9999, 0.99999), told=EMA - FROM_ZERO
    ),
    "codes rewritten without sums": _Span(fits=STYLES | {"VectorQuantize", "rosinality", "zalando"}),
    "counts from zero": _Span(
        fits=("rosinality", "zalando", "VideoGPT style", "pythae style", "encodec style", "RQ-VAE style")
    ),
    "saved before the first step": _Span(fits=EMA | BY_GRADIENT),
    "weight decay on the codebook": _Span(
        fits=("taming", "diffusers", "Chameleon", "VectorQuantize-gradient", "NSVQ", "residual stack"),
        severities=_times("codebook_decay", 1e-2, 1e-1),
    ),
    # the batch's counts are not in the file: that codes and statistics disagree is all that it shows
    "divided by the batch's counts + 1": _Span(fits=_DIVIDES, accepts_bare=("VQ303",)),
    "divided by the counts + 1": _Span(fits=_DIVIDES),
    "normaliser lost": _Span(fits=_DIVIDES),
    # the same wherever the file shows what divides
    "normaliser lost in the counts": _Span(fits=_DIVIDES | {"bshall style"}, told=_DIVIDES),
    "normaliser applied twice": _Span(fits=_DIVIDES),
    "sums never divided": _Span(fits=_DIVIDES),
    "sums multiplied by the counts": _Span(fits=_DIVIDES),
    "codes alone on a sphere": _Span(fits=STYLES | {"rosinality", "zalando"}),
    "vectors alone on a sphere": _Span(fits=STYLES | {"rosinality", "zalando", "taming"}),
    "loader does not shuffle": _Span(fits=ALL),
    # too many codes for the data is told by the codes that nothing chooses
    "dead codes": _Span(
        fits=_PLACED | FROM_ZERO,
        severities=_times("codes", 1024, 4096),
        accepts=("VQ510",),
        told=EMA,
    ),
    "duplicate codes": _Span(
        fits=_PLACED - LEVELS - {"SimVQ"} | FROM_ZERO, severities=_times("distinct", 24, 8)
    ),
    "encoder dead": _Span(fits=ALL),
    "encoder through four directions": _Span(
        fits=_PLACED - {"SimVQ"} | FROM_ZERO, severities=_times("directions", 4, 2), accepts=("VQ504",),
        told=EMA - BY_ANGLE,
    ),
    "masked by averaging": _Span(fits=ALL - WITHOUT_CODES - BY_ANGLE, data=("digits",)),
    "codes not decoded": _Span(fits=ALL),
    "noise before the layer": _Span(fits=ALL - NOISY, severities=_times("noise", 3.0, 5.0)),
    "batch norm that hardly averages": _Span(fits=ALL - NOISY),
    "labels of other samples": _Span(fits=ALL),
}  # fmt: skip


def _spanned(fault: Fault) -> Kind:
    span = _SPANS.get(fault.name, _Span())
    return Kind(
        fault=fault,
        fits=None if span.fits is None else frozenset(span.fits),
        severities=span.severities,
        accepts=frozenset(span.accepts),
        accepts_bare=frozenset(span.accepts_bare),
        told=None if span.told is None else frozenset(span.told),
        data=span.data,
    )


_RAW = {"normalise": False, **PLAIN}
_FIELD = (
    Kind(
        fault=Fault(
            name="residual not subtracted",
            code="VQ110",
            switch={"residual_subtracted": False},
            why="codes of equal inputs look like any others",
        )
    ),
    Kind(
        fault=Fault(
            name="encoder without a graph",
            code="VQ102",
            switch={"encoder_graph": False},
            why="a file shows that the encoder is cut off, and not where",
        ),
        accepts_bare=frozenset({"VQ101"}),
    ),
    Kind(
        fault=Fault(
            name="encoder's gain",
            code="VQ310",
            switch={"spread": 40.0},
            base=_RAW,
            why="the size of z_e takes a model",
        ),
        fits=_PLACED - {"SimVQ"},
        severities=_times("spread", 40.0, 100.0),
        accepts=frozenset({"VQ301"}),
    ),
    Kind(
        fault=Fault(
            name="raw inputs",
            code="VQ314",
            switch={"input_scale": 255.0},
            base=_RAW,
            why="the size of the inputs takes data",
        ),
        fits=BY_GRADIENT - BY_ANGLE,
        severities=_times("input_scale", 255.0, 1000.0),
        accepts=frozenset({"VQ310"}),
    ),
    Kind(
        fault=Fault(
            name="val on another scale",
            code="VQ315",
            switch={"val_scale": 10.0},
            why="the scale of data takes data",
        ),
        fits=ALL,
        severities=_times("val_scale", 10.0, 255.0),
    ),
    Kind(
        fault=Fault(
            name="learning rate too high",
            code="VQ404",
            switch={"learning_rate": 0.1},
            base={"revival": False},
            why="the optimizer's groups hold the rate, and what it did takes a model",
        ),
        fits=ALL - WITHOUT_CODES,
        severities=_times("learning_rate", 0.1, 0.3),
    ),
    Kind(
        fault=Fault(
            name="padding taken for data",
            code="VQ511",
            switch={"padding": 0.6},
            why="EMA counts show that one code takes most, and all others are even",
        ),
        fits=EMA | BY_GRADIENT,
        severities=_times("padding", 0.6, 0.8),
        data=("motion",),
        told=EMA,
    ),
    Kind(
        fault=Fault(
            name="hardly any commitment",
            code="VQ202",
            switch={"vq_weight": 1e-5},
            base={"normalise": False, "steps": 600, "learning_rate": 5e-3, **LEFT_ALONE},
            why="how far z_e has run from the codes takes z_e",
        ),
        fits=EMA - BY_ANGLE,
        severities=_times("vq_weight", 1e-5, 0.0),
        accepts=frozenset({"VQ205"}),
    ),
    Kind(
        fault=Fault(
            name="dropout before the layer",
            code="VQ606",
            switch={"dropout": 0.5},
            why="a mode leaves no trace in a file",
        ),
        fits=ALL - NOISY,
        severities=_times("dropout", 0.5, 0.7),
    ),
    Kind(
        fault=Fault(
            name="weight decay, and no optimizer in the file",
            code="VQ308",
            switch={"codebook_decay": 1e-2, "optimizer_saved": False},
            base={"revival": False, "codes": 512, "learning_rate": 5e-3},
            why="the decay stands in the optimizer alone",
        ),
        fits=frozenset({"taming", "diffusers", "Chameleon", "VectorQuantize-gradient", "NSVQ"}),
        severities=_times("codebook_decay", 1e-2, 1e-1),
    ),
    Kind(
        fault=Fault(
            name="as the constructor leaves it",
            code="VQ306",
            switch={"steps": 0, "optimizer_saved": False},
            bare=None,
            why="a table that lies in the constructor's box was never trained",
        ),
        fits=EMA | BY_GRADIENT - {"SimVQ"},
    ),
)

KINDS: Mapping[str, Kind] = {kind.name: kind for kind in (*map(_spanned, FAULTS), *_FIELD)}

PAIRS = tuple(
    (KINDS[first], KINDS[second])
    for first, second in (
        ("no straight-through", "codebook never moved"),
        ("no straight-through", "evaluation trains the codebook"),
        ("no straight-through", "slow EMA"),
        ("no straight-through", "two writers"),
        ("detached after the layer", "normaliser lost"),
        ("detached after the layer", "two writers"),
        ("detached after the layer", "weight decay on the codebook"),
        ("detached after the layer", "codes rewritten without sums"),
        ("encoder without a graph", "divided by the counts + 1"),
        ("encoder without a graph", "evaluation trains the codebook"),
        ("codes not decoded", "normaliser applied twice"),
        ("codes not decoded", "two writers"),
        ("cut along the wrong axis", "two writers"),
        ("cut along the wrong axis", "evaluation trains the codebook"),
        ("cut along the wrong axis", "sums multiplied by the counts"),
        ("cut along the wrong axis", "VQ loss not added"),
        ("two writers", "evaluation trains the codebook"),
        ("VQ loss not added", "normaliser lost"),
        ("VQ loss not added", "initialised flag not saved"),
        ("VQ loss summed", "initialised flag not saved"),
        ("VQ loss summed", "evaluation trains the codebook"),
        ("VQ loss summed", "beta on the codebook's term"),
        ("VQ loss summed", "two writers"),
        ("labels of other samples", "evaluation trains the codebook"),
        ("labels of other samples", "cut along the wrong axis"),
        ("noise before the layer", "two writers"),
        ("noise before the layer", "VQ loss not added"),
        ("last level never trained", "two writers"),
        ("last level never trained", "cut along the wrong axis"),
        ("initialised flag not saved", "evaluation trains the codebook"),
        ("duplicate codes", "evaluation trains the codebook"),
        ("loader does not shuffle", "cut along the wrong axis"),
        ("loader does not shuffle", "evaluation trains the codebook"),
    )
)
"""Faults that leave each other's signs alone: neither makes the other meaningless, or is its consequence."""
