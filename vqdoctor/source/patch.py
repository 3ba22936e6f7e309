"""The type of a patch: a remedy's change of a source file, as proposals that are still to be proven."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import libcst as cst

from vqdoctor.core.frozen import frozen
from vqdoctor.source.place import Place


@dataclass(frozen=True, kw_only=True, eq=False)
class Proposal:
    """One way to change the source.

    Attributes:
        module: the whole file with the change in it.
        what: the change, in a few words.
    """

    module: cst.Module
    what: str


@frozen
class Patch:
    """One patch. One file in `patches/` defines one, as `PATCH`.

    Attributes:
        remedies: names of the remedies and of the advice that it carries out.
        propose: yields changes for a remedy, the likeliest first; none where it finds no place for it.
        keeps_values: whether the model computes the same values in a forward pass after it.
        gives_codes: whether the layer must hand on its codes after it, and no longer z_e, if it did.
    """

    remedies: tuple[str, ...]
    propose: Callable[[Place, str], Iterator[Proposal]]
    keeps_values: bool = True
    gives_codes: bool = False
