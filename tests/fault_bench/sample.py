"""A seeded sample of models, sick and healthy, for development and held out.

Held out are the data set `HELD_OUT_DATA` and the implementations `HELD_OUT`, a third of all: no limit and no
rule was ever looked at with them. A model with either belongs to the part that is held out.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fault_bench.host import IMPLEMENTATIONS
from fault_bench.kinds import ALL, KINDS, PAIRS, Kind, Names
from fault_bench.setup import Setup

HELD_OUT = frozenset(
    {"zalando", "pythae style", "Mimi", "DAC", "Chameleon", "GroupedResidualVQ", "SimVQ", "NSVQ"}
)
HELD_OUT_DATA = "photos"
DATA: Mapping[str, tuple[str, str]] = {
    "digits": ("digits", "digit-classes"),
    "motion": ("motion", "motion-classes"),
    "photos": ("photos", "photo-classes"),
}
"""Names of each data set without and with labels: to reconstruct alone, and to classify as well."""
DEVELOPMENT, HELD = "development", "held out"
DEVELOPMENT_SHARE = 0.54
HEALTHY_AT = (2, 5, 8)
"""Which of ten models are healthy: 120 of 400."""
PAIR_EVERY = 5
AVERAGED = frozenset({"VectorQuantize", "rosinality", "VideoGPT style", "own style", "pythae style"})
"""Implementations whose healthy trainings may save an average of all weights."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model of the bench.

    Attributes:
        number: its place in the sample.
        part: `DEVELOPMENT` or `HELD`.
        setup: its training.
        twin: the training that differs in the switches alone.
        kinds: what is wrong with it; none where it is healthy.
    """

    number: int
    part: str
    setup: Setup
    twin: Setup
    kinds: tuple[Kind, ...]

    @property
    def name(self) -> str:
        return " + ".join(kind.name for kind in self.kinds) or "healthy"

    @property
    def labelled(self) -> bool:
        return self.setup.data.endswith("-classes")


def sample(count: int, seed: int = 0) -> list[Model]:
    """Return the models, development first; the same ones for the same arguments."""
    development = round(count * DEVELOPMENT_SHARE)
    parts = ((DEVELOPMENT, range(development)), (HELD, range(development, count)))
    return [model for part, numbers in parts for model in _Part(part, seed).models(numbers)]


class _Part:
    def __init__(self, part: str, seed: int) -> None:
        self.part, self.seed = part, seed
        self.random = random.Random(f"{seed} {part}")
        self.singles = self._turns([(kind,) for kind in KINDS.values()])
        self.pairs = self._turns(PAIRS)
        self.used: Counter[str] = Counter()
        self.well: Counter[str] = Counter()
        self.sick = 0

    def models(self, numbers: range) -> list[Model]:
        return [self._well(number) if number % 10 in HEALTHY_AT else self._sick(number) for number in numbers]

    def _turns(self, kinds: Collection[tuple[Kind, ...]]) -> list[tuple[Kind, ...]]:
        """Return the kinds that this part has implementations and data for, in the order of their turns."""
        able = [turn for turn in kinds if self._places(turn)]
        self.random.shuffle(able)
        return able

    def _places(self, kinds: tuple[Kind, ...]) -> list[tuple[str, str]]:
        """Return the implementations and data sets of this part that can have all these faults."""
        names: Names = ALL
        data = set(DATA)
        for kind in kinds:
            names &= kind.implementations()
            data &= set(kind.data or DATA)
        return [(name, of) for name in sorted(names) for of in sorted(data) if self._mine(name, of)]

    def _mine(self, implementation: str, data: str) -> bool:
        held = implementation in HELD_OUT or data == HELD_OUT_DATA
        return held == (self.part == HELD)

    def _rarest(self, places: list[tuple[str, str]], used: Counter[str]) -> tuple[str, str]:
        """Return the place whose implementation, then whose data, came up least."""
        self.random.shuffle(places)
        name, data = min(places, key=lambda place: (used[place[0]], used[place[1]]))
        used.update((name, data))
        return name, data

    def _sick(self, number: int) -> Model:
        self.sick += 1
        turns = self.pairs if self.sick % PAIR_EVERY == 0 else self.singles
        kinds = turns.pop(0)
        turns.append(kinds)
        name, data = self._rarest(self._places(kinds), self.used)
        labelled = any(kind.fault.labelled for kind in kinds) or self.random.random() < 0.5
        usual: dict[str, Any] = {"codes": self.random.choice((64, 128, 256)), **IMPLEMENTATIONS[name].usual}
        base = {key: value for kind in kinds for key, value in kind.fault.base.items()}
        twin = replace(
            Setup(implementation=name, data=DATA[data][labelled], seed=self.seed * 1000 + number),
            **usual | base,
        )
        switched: dict[str, Any] = {}
        for kind in kinds:
            # the severities of a kind in turn, so that each comes up
            turn = self.used[kind.name]
            self.used[kind.name] += 1
            switched |= {**kind.fault.switch, **kind.severities[turn % len(kind.severities)]}
        return Model(number=number, part=self.part, setup=replace(twin, **switched), twin=twin, kinds=kinds)

    def _well(self, number: int) -> Model:
        name, data = self._rarest(self._places(()), self.well)
        draw = self.random
        usual: dict[str, Any] = {
            "codes": draw.choice((32, 64, 128, 256)),
            "dim": draw.choice((8, 16, 32)),
            "normalise": draw.random() < 0.7,
            "steps": draw.choice((200, 300)),
            "batch": draw.choice((32, 64)),
            "decay": draw.choice((0.9, 0.95, 0.98)),
            "learning_rate": draw.choice((1e-3, 2e-3)),
            "dropout": draw.choice((0.0, 0.0, 0.0, 0.1)),
            **IMPLEMENTATIONS[name].usual,
        }
        if name in AVERAGED and draw.random() < 0.3:
            usual |= {"averaged_weights": 0.95, "normalise": False}
        labelled = draw.random() < 0.5
        setup = Setup(implementation=name, data=DATA[data][labelled], seed=self.seed * 1000 + number, **usual)
        return Model(number=number, part=self.part, setup=setup, twin=setup, kinds=())
