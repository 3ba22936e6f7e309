"""Healthy trainings: nothing is wrong with any, whatever the implementation, the data, K and the encoder."""

from __future__ import annotations

from collections.abc import Iterator

from fault_bench.faults import HELD_OUT
from fault_bench.setup import Setup

_TUNED = (
    Setup(implementation="VectorQuantize", data="digits", codes=256),
    Setup(implementation="VectorQuantize", data="digit-classes", codes=512, seed=1),
    Setup(implementation="VectorQuantize", data="sequences", codes=64, seed=2),
    Setup(implementation="VectorQuantize", data="sequences", codes=128, seed=3, normalise=False),
    Setup(implementation="VectorQuantize-cosine", data="digits", codes=128),
    Setup(implementation="VectorQuantize-cosine", data="digit-classes", codes=256, seed=1, normalise=False),
    Setup(implementation="VectorQuantize-cosine", data="sequences", codes=64, seed=2),
    Setup(implementation="ResidualVQ", data="digits", codes=64),
    Setup(implementation="ResidualVQ", data="digit-classes", codes=128, seed=1, normalise=False),
    Setup(implementation="ResidualVQ", data="sequences", codes=256, seed=2),
    Setup(implementation="taming", data="digits", codes=256),
    Setup(implementation="taming", data="digit-classes", codes=64, seed=1, normalise=False),
    Setup(implementation="taming", data="sequences", codes=128, seed=2),
    Setup(implementation="taming", data="sequences", codes=1024, seed=3),
    Setup(implementation="rosinality", data="digits", codes=512),
    Setup(implementation="rosinality", data="digit-classes", codes=128, seed=1),
    Setup(implementation="rosinality", data="sequences", codes=256, seed=2, normalise=False),
    Setup(implementation="rosinality", data="sequences", codes=8192, seed=3, steps=150, dim=8),
    Setup(implementation="diffusers", data="digits", codes=128),
    Setup(implementation="diffusers", data="digit-classes", codes=256, seed=1, normalise=False),
    Setup(implementation="diffusers", data="sequences", codes=64, seed=2),
    Setup(implementation="VideoGPT style", data="digits", codes=128),
    Setup(implementation="VideoGPT style", data="digit-classes", codes=256, seed=1),
    Setup(implementation="bshall style", data="sequences", codes=128),
    Setup(implementation="first model style", data="digits", codes=256),
    Setup(implementation="RQ-VAE style", data="digit-classes", codes=128),
    Setup(implementation="pythae style", data="sequences", codes=64),
    Setup(implementation="encodec style", data="digits", codes=256),
    Setup(implementation="own style", data="digits", codes=128),
    Setup(implementation="VectorQuantize", data="digits", codes=128, normalise=False, averaged_weights=0.95),
    Setup(implementation="rosinality", data="sequences", codes=128, normalise=False, averaged_weights=0.95),
    Setup(implementation="VideoGPT style", data="digits", codes=128, normalise=False, averaged_weights=0.95),
    Setup(implementation="rosinality", data="digits", codes=128, normalise=False, sphere="both"),
    Setup(implementation="VideoGPT style", data="sequences", codes=128, normalise=False, sphere="both"),
    Setup(implementation="rosinality", data="digits", codes=128, dropout=0.1),
    Setup(implementation="residual stack", data="digits", codes=64),
    Setup(implementation="residual stack", data="digit-classes", codes=128, seed=1),
    Setup(implementation="residual stack", data="sequences", codes=128, seed=2, normalise=False),
)
_HELD_OUT = (
    Setup(implementation=HELD_OUT, data="digits", codes=256),
    Setup(implementation=HELD_OUT, data="sequences", codes=128, seed=1),
    Setup(implementation=HELD_OUT, data="patches", codes=64, seed=2),
    Setup(implementation="zalando", data="digits", codes=128, normalise=False, averaged_weights=0.95),
    Setup(implementation="pythae style", data="patches", codes=128),
    Setup(implementation="VectorQuantize", data="patches", codes=256),
    Setup(implementation="ResidualVQ", data="patches", codes=64, seed=1),
    Setup(implementation="taming", data="patches", codes=128, seed=2),
    Setup(implementation="rosinality", data="patches", codes=512),
    Setup(implementation="diffusers", data="patches", codes=128, seed=1),
)


def healthy(*, held_out: bool) -> Iterator[Setup]:
    """Yield the healthy trainings of what was looked at, or of what was held out."""
    yield from _HELD_OUT if held_out else _TUNED
