"""What the user may set about an examination."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of an examination; the defaults are those of the command line.

    Attributes:
        select: codes of checks to run, or beginnings of codes ("VQ5"); empty is all.
        ignore: codes of checks to leave out, or beginnings of codes.
        limits: changed limits, by code and name.
        verify: whether to read and check every byte of the file.
        seed: seed of everything that is drawn.
        layer: examine only the VQ layer of this name.
        codebook_key: take this tensor as a codebook.
        orientation: "kd" or "dk" where the guess is wrong.
        histogram: whether the report carries the usage of every code.
        device: "auto", "cpu", "cuda" or "mps".
    """

    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    limits: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    verify: bool = False
    seed: int = 0
    layer: str | None = None
    codebook_key: str | None = None
    orientation: Literal["kd", "dk"] | None = None
    histogram: bool = False
    device: str = "auto"
