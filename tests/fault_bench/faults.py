"""The faults: for each the code that it must be called by, and the one setting that makes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fault_bench.host import IMPLEMENTATIONS
from fault_bench.setup import Setup

HELD_OUT = "zalando"
"""The implementation that no limit and no rule was ever looked at with."""
TUNED = ("VectorQuantize", "ResidualVQ", "taming", "rosinality", "diffusers")
GRADIENT = ("taming", "diffusers", "residual stack")
"""Implementations whose codebook the optimizer moves: their file says nothing of its usage."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault.

    Attributes:
        name: what is wrong.
        code: the check that must be the first finding.
        switch: the setting that makes it.
        base: settings that the healthy twin has as well.
        on: implementations beside those that have the switch as their own.
        labelled: whether it needs data with labels.
        data: the data set that it needs.
        also: codes that must be named too, with a model.
        bare: implementations whose file alone tells it; None is all.
        why: why a file alone tells it, or does not.
    """

    name: str
    code: str
    switch: Mapping[str, Any]
    why: str
    base: Mapping[str, Any] = field(default_factory=dict)
    on: tuple[str, ...] = ()
    labelled: bool = False
    data: str | None = None
    also: tuple[str, ...] = ()
    bare: tuple[str, ...] | None = ()

    def implementations(self) -> tuple[str, ...]:
        """Return where the fault makes sense: where it is outside the layer, or the layer can have it."""
        own = set(self.switch) & set().union(*(i.switches for i in IMPLEMENTATIONS.values()))
        if self.on:
            return self.on
        if not own:
            return (*TUNED, HELD_OUT)
        return tuple(name for name, i in IMPLEMENTATIONS.items() if own <= i.switches)

    def told_by_file(self, implementation: str) -> bool:
        return self.bare is None or implementation in self.bare

    def setup(self, implementation: str, seed: int, data: str | None = None, *, sick: bool = True) -> Setup:
        """Return the training of a patient, or of the twin that differs in the switch only."""
        usual = "sequences" if seed % 2 else "digit-classes" if self.labelled else "digits"
        setup = Setup(implementation=implementation, data=data or self.data or usual, seed=seed)
        twin = replace(setup, **self.base)
        return replace(twin, **self.switch) if sick else twin


PLAIN = {"data_init": False, "revival": False}
"""A codebook that starts at random, and is left alone."""
LEFT_ALONE = {"revival": False}
HOME_MADE = ("VideoGPT style", "bshall style")
_BUFFERS = ("rosinality", "zalando", *HOME_MADE)
_RULE = "codes, counts and sums stand in the file"


def _wrong_rule(name: str, rule: str, also: tuple[str, ...] = ()) -> Fault:
    """Return a fault of the EMA's division, a name in `fault_bench.ema.DIVISORS`."""
    return Fault(
        name=name,
        code="VQ309",
        switch={"rule": rule},
        base=LEFT_ALONE,
        on=("rosinality", "zalando", "VideoGPT style", "first model style"),
        also=also,
        bare=None,
        why=_RULE,
    )


FAULTS = (
    Fault(
        name="no straight-through",
        code="VQ101",
        switch={"straight_through": False},
        bare=None,
        why="the optimizer remembers that the encoder's gradients were hardly any",
    ),
    Fault(
        name="detached after the layer",
        code="VQ102",
        switch={"attached": False},
        why="a file shows that the encoder is cut off, and not where",
    ),
    Fault(
        name="codebook never moved",
        code="VQ103",
        switch={"codebook_trained": False},
        base=PLAIN,
        bare=("taming", "diffusers"),
        why="the optimizer lists the codebook and has no state for it; no file tells who writes a buffer",
    ),
    Fault(
        name="two writers",
        code="VQ104",
        switch={"one_writer": False},
        bare=None,
        why="the optimizer has a state for a codebook that is what its EMA says",
    ),
    Fault(
        name="cut along the wrong axis",
        code="VQ105",
        switch={"permuted": False},
        why="the codes of strips look like any others",
    ),
    Fault(
        name="residual not detached",
        code="VQ106",
        switch={"residual_detached": False},
        why="a graph leaves no trace in a file",
    ),
    Fault(
        name="gradients that are not finite",
        code="VQ107",
        switch={"finite": False},
        why="the steps were skipped, so all that was saved is finite",
    ),
    Fault(
        name="lookup in bfloat16",
        code="VQ108",
        switch={"lookup_in_full": False},
        base={"offset": 8.0, "spread": 0.1, "revival": False, "steps": 100},
        on=("VectorQuantize", "ResidualVQ", "taming", "rosinality", "zalando"),
        why="a file tells it where the codebook is stored like that, and not where autocast casts it",
    ),
    Fault(
        name="VQ loss weighs 100",
        code="VQ201",
        switch={"vq_weight": 100.0},
        bare=None,
        why="the weight stands in the file's config",
    ),
    Fault(
        name="VQ loss weighs 0.00001",
        code="VQ202",
        switch={"vq_weight": 1e-5},
        base={"normalise": False, "revival": False},
        on=GRADIENT[:2],
        why="how far z_e has run from the codes takes z_e",
    ),
    Fault(
        name="beta on the codebook's term",
        code="VQ203",
        switch={"beta_on_encoder": False},
        on=("taming", "residual stack"),
        why="a loss leaves no trace in a file",
    ),
    Fault(
        name="VQ loss summed",
        code="VQ204",
        switch={"averaged": False},
        base={"vq_weight": 1.0},
        why="a loss leaves no trace in a file",
    ),
    Fault(
        name="VQ loss not added",
        code="VQ205",
        switch={"vq_in_loss": False},
        why="the file's config says the weight that was meant",
    ),
    Fault(
        name="VQ loss without a gradient",
        code="VQ206",
        switch={"loss_has_gradient": False},
        on=("VectorQuantize", "taming", "rosinality", *HOME_MADE),
        why="a loss leaves no trace in a file",
    ),
    Fault(
        name="codebook far from z_e",
        code="VQ301",
        switch={"data_init": False},
        base={"offset": 3.0, "revival": False},
        why="where z_e lies takes data",
    ),
    Fault(
        name="slow EMA",
        code="VQ302",
        switch={"decay": 0.9999},
        base=PLAIN,
        bare=None,
        why="decay and updates stand in the file",
    ),
    Fault(
        name="codes rewritten without sums",
        code="VQ303",
        switch={"sums_written": False},
        on=("VectorQuantize", "rosinality", "zalando"),
        bare=None,
        why="codes, counts and sums stand in the file",
    ),
    Fault(
        name="counts from zero",
        code="VQ304",
        switch={"counts_from_one": False},
        base={**PLAIN, "decay": 0.99, "steps": 320},
        bare=None,
        why="the codes that have blown up stand in the file",
    ),
    Fault(
        name="initialised flag not saved",
        code="VQ305",
        switch={"flag_saved": False},
        why="what a file lacks may live in the code",
    ),
    Fault(
        name="saved before the first step",
        code="VQ306",
        switch={"steps": 0},
        bare=None,
        why="flag, counts or optimizer say that nothing was trained",
    ),
    Fault(
        name="evaluation trains the codebook",
        code="VQ307",
        switch={"guarded": False},
        why="a mode leaves no trace in a file",
    ),
    Fault(
        name="weight decay on the codebook",
        code="VQ308",
        switch={"codebook_decay": 1e-2},
        base={"revival": False, "codes": 512, "learning_rate": 5e-3},
        bare=None,
        why="the optimizer's groups and the codes' length stand in the file",
    ),
    _wrong_rule("normaliser lost", "total lost"),
    Fault(
        name="normaliser lost in the counts",
        code="VQ309",
        switch={"rule": "total lost"},
        base=LEFT_ALONE,
        on=("bshall style",),
        why="the smoothed counts are stored, so the file agrees with itself",
    ),
    _wrong_rule("normaliser applied twice", "total twice"),
    _wrong_rule("sums never divided", "none", also=("VQ508",)),
    _wrong_rule("sums multiplied by the counts", "multiplied"),
    _wrong_rule("divided by the batch's counts + 1", "batch"),
    _wrong_rule("divided by the counts + 1", "one more"),
    Fault(
        name="codes alone on a sphere",
        code="VQ310",
        switch={"sphere": "codes"},
        base={"normalise": False, "spread": 3.0, "vq_weight": 0.02, **LEFT_ALONE},
        on=_BUFFERS,
        bare=None,
        why=_RULE,
    ),
    Fault(
        name="vectors alone on a sphere",
        code="VQ310",
        switch={"sphere": "vectors"},
        base={"normalise": False, "spread": 3.0, **LEFT_ALONE},
        on=("taming", *_BUFFERS),
        why="what is looked up takes a model",
    ),
    Fault(
        name="batch under the threshold",
        code="VQ402",
        switch={"threshold": 2.0},
        base={"batch": 4, "codes": 256, "revival": False},
        bare=None,
        why="the threshold stands in the config, and the counts beside the codes",
    ),
    Fault(
        name="loader does not shuffle",
        code="VQ403",
        switch={"shuffled": False},
        labelled=True,
        why="the order of the samples is not recorded",
    ),
    Fault(
        name="dead codes",
        code="VQ502",
        switch={"revival": False},
        base={"codes": 1024},
        bare=("VectorQuantize", "ResidualVQ", "rosinality", "zalando"),
        why="EMA counts tell it; a codebook without them needs data",
    ),
    Fault(
        name="duplicate codes",
        code="VQ503",
        switch={"distinct": 24},
        base={"revival": False},
        on=("VectorQuantize", "taming", "rosinality", "diffusers", "zalando"),
        bare=None,
        why="the copies stand in the file",
    ),
    Fault(
        name="revival undone",
        code="VQ505",
        switch={"whole_writes": False},
        base={"data_init": False, "codes": 512, "threshold": 0.1, "revival": False},
        on=("rosinality",),
        why="a revival that is undone in the same pass leaves no trace",
    ),
    Fault(
        name="last level never trained",
        code="VQ506",
        switch={"every_level": False},
        bare=None,
        why="its EMA counts stand at their start, while the others moved",
    ),
    Fault(
        name="encoder dead",
        code="VQ507",
        switch={"alive": False},
        base={"normalise": False},
        why="that z_e is constant takes z_e",
    ),
    Fault(
        name="encoder through four directions",
        code="VQ509",
        switch={"directions": 4},
        base={"dim": 32},
        data="digits",  # a note comes after a warning, and the twins on sequences are badly calibrated
        bare=("VectorQuantize", "ResidualVQ", "rosinality", "zalando"),
        why="codes that an EMA makes lie where z_e does, and its counts say which are in use",
    ),
    Fault(
        name="masked by averaging",
        code="VQ601",
        switch={"position": 4.0},
        base={"codes": 32, "steps": 400},
        labelled=True,
        data="digit-classes",
        why="what one position says takes labels",
    ),
    Fault(
        name="codes not decoded",
        code="VQ602",
        switch={"decodes_codes": False},
        why="what the decoder reads leaves no trace in a file",
    ),
    Fault(
        name="noise before the layer",
        code="VQ606",
        switch={"noise": 5.0},
        on=("VectorQuantize", "taming", *_BUFFERS),
        why="a mode leaves no trace in a file",
    ),
    Fault(
        name="batch norm that hardly averages",
        code="VQ606",
        switch={"momentum": 1e-4},
        on=("VectorQuantize", "taming", *_BUFFERS),
        why="running statistics look like any others",
    ),
    Fault(
        name="labels of other samples",
        code="VQ607",
        switch={"paired": False},
        on=("VectorQuantize", "taming", "rosinality", "diffusers", "zalando", *HOME_MADE),
        labelled=True,
        data="digit-classes",
        bare=None,
        why="the file records its accuracy",
    ),
)


def cells(*, held_out: bool) -> Iterator[tuple[Fault, str]]:
    """Yield each fault with each implementation that it makes sense on: the tuned ones, or those held out."""
    for fault in FAULTS:
        for implementation in fault.implementations():
            if (implementation == HELD_OUT) == held_out:
                yield fault, implementation
