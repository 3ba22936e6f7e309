"""What a remedy is: what it does to which causes, in words, in lines of code, and how safely."""

from __future__ import annotations

from dataclasses import dataclass

from vqdoctor.core.levels import Safety, Stage


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """One remedy. One file in `remedies/` defines one, as `REMEDY`.

    Attributes:
        name: what it does, in a few words with dashes.
        stage: its place in the priority order of the plan.
        safety: whether it may be applied unasked.
        addresses: codes of the checks whose causes it mends.
        how: one sentence: what to do.
        code: the two or three lines that do it, or the command; "" for plain advice.
        doc: the module's docstring: why it helps, and what to watch.
    """

    name: str
    stage: Stage
    safety: Safety
    addresses: tuple[str, ...]
    how: str
    code: str = ""
    doc: str = ""
