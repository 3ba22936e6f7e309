"""Which layers of a file are levels of one stack."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vqdoctor.layouts.relation import BY_RELATION
from vqdoctor.layouts.view import QuantizerView

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")
_LEVEL = re.compile(r"(?<=\.)\d+(?=\.|$)|(?<=\[head )\d+(?=\]$)")


def stacks(views: Sequence[QuantizerView]) -> list[list[QuantizerView]]:
    """Group the layers of one shape whose names differ in one number only, in the order of that number.

    Where names have several numbers, as groups of levels have, the last one is the level's. Codebooks of one
    tensor that no library's layout calls heads may be levels as well.
    """
    found: dict[tuple[str, str, int], list[tuple[int, QuantizerView]]] = {}
    for view in views:
        numbers = list((_LEVEL if view.layout == BY_RELATION else _NUMBER).finditer(view.name))
        if numbers:
            last = numbers[-1]
            key = (view.name[: last.start()], view.name[last.end() :], view.dim)
            found.setdefault(key, []).append((int(last.group()), view))
    return [[view for _, view in sorted(s, key=lambda item: item[0])] for s in found.values() if len(s) > 1]
