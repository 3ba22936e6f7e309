"""A layout: one family's way of naming and shaping a VQ layer's tensors in a state dict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import field, replace
from enum import IntEnum
from typing import Literal

from vqdoctor.core.frozen import frozen
from vqdoctor.layouts.state_dict import StateDict
from vqdoctor.layouts.view import QuantizerView

Orientation = Literal["kd", "dk"]


class Specificity(IntEnum):
    """How much a layout asks for; where two claim one codebook, the one that asks for more wins."""

    GUESS = 1
    """A word in the path and a shape."""
    PATH = 2
    """A path that one family of models is known for, and a shape."""
    EMA = 3
    """A codebook and EMA statistics whose shapes fit, under any of the usual names."""
    LIBRARY = 4
    """All the names and shapes that one library writes."""
    VARIANT = 5
    """The same, and beside it what tells a module that uses the library's own layer in another way."""


@frozen
class Ema:
    """A library's EMA constants; None where unknown. See `QuantizerView` for their meaning."""

    start_count: float | None = None
    smoothing: float | None = None
    default_decay: float | None = None


@frozen
class Vocabulary:
    """A library's own names, for the code of advice.

    Attributes:
        layer: the class of a VQ layer ("VectorQuantize"); "" where the names of tensors do not tell it.
        stack: the class of a stack of levels ("ResidualVQ"), which takes the same arguments; "" is `layer`.
        arguments: term of the field ("decay", see `ARGUMENTS`) to the argument's name, or to "name=value"
            where the value is always the same.
        returns: the results of a call of the layer, in the names "z_q", "indices" and "vq_loss".
        of: the libraries, where further layers have the same tensors: then the arguments are shown beside
            the code, and not in its place.
    """

    layer: str = ""
    stack: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)
    returns: str = ""
    of: str = ""


ARGUMENTS = (
    "decay", "k-means", "dead codes", "VQ weight", "beta on commitment", "codes",
    "rotation", "unit length", "entropy",
)  # fmt: skip
"""The terms of `Vocabulary.arguments`."""


@frozen
class Layout:
    """One layout. One file of `layouts.families` defines one, as `LAYOUT`.

    Attributes:
        name: its name in reports: lower-case words with hyphens.
        title: whose layout it is, as a few words.
        specificity: how much it asks for.
        find: yields every VQ layer that it sees: a function, or the declaration of a library's names
            (`EmaLayers`, `Projected`). It looks at keys, shapes and types alone, and reads no
            value but a scalar flag. The orientation is the user's word, for where shapes do not tell.
        example: key to shape, as the library writes them; no other layout of its specificity or above may
            claim these tensors as well.
        sees: name, K and D of the one layer that it sees in the example.
        words: the library's own names, for the code of advice.
    """

    name: str
    title: str
    specificity: Specificity
    find: Callable[[StateDict, Orientation | None], Iterable[QuantizerView]]
    example: Mapping[str, tuple[int, ...]]
    sees: tuple[str, int, int]
    words: Vocabulary = Vocabulary()

    def views(self, state: StateDict, orientation: Orientation | None) -> Iterator[QuantizerView]:
        """Yield the views of `find`, under this layout's name."""
        return (replace(view, layout=self.name) for view in self.find(state, orientation))
