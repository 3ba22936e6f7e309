"""The layouts: one file for each family, found by scanning this package.

A new family is one new file here. Its docstring lists the keys and shapes, and it ends with
`LAYOUT = Layout(…)`, whose `example` the contract test over all layouts runs against all the others.
"""

from __future__ import annotations

import sys
from functools import cache

from vqdoctor.core.discovery import pieces
from vqdoctor.layouts.layout import Layout


@cache
def all_layouts() -> tuple[Layout, ...]:
    """Return every layout, the one that asks for most first."""
    found = pieces(sys.modules[__name__], "LAYOUT", Layout)
    return tuple(sorted(found, key=lambda layout: (-layout.specificity, layout.name)))
