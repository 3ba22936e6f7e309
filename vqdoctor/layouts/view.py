"""One VQ layer of a checkpoint in one orientation, whatever the library stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, wraps
from typing import Literal, Protocol, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from vqdoctor.core.levels import Confidence
from vqdoctor.layouts.place import Place

Array = NDArray[np.float32]

LEAST_COUNT = 1e-5
"""Counts are no smaller where codes are computed from sums and counts, as in Mimi."""

Told = TypeVar("Told")

Lookup = Literal["euclidean", "cosine", "logits"]
"""How a vector's code is chosen: the nearest row, the row of the nearest direction, or the largest output
of a map of its own, whatever the rows are (Gumbel)."""


class Tensor(Protocol):
    """A stored tensor as a layout needs it: its shape and type at once, its values when asked.

    A tensor may also have a `storage_id`, with `offset` and `strides`: tensors that agree in these are one.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape as stored."""

    @property
    def dtype(self) -> str:
        """Element type as torch names it, without "torch." ("float32", "bfloat16", "int64")."""

    def read(self) -> NDArray[np.generic]:
        """Read, check and return the values; bf16 and fp8 are widened to float32."""


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantizerView:
    """One VQ layer: where it is, what it is, and its arrays, read when first asked for.

    Attributes:
        name: the layer's path in the model without wrappers' prefixes ("vq", "rvq.layers.0").
        layout: name of the layout that recognised it; `Layout.views` fills it in.
        confidence: how sure the recognition is.
        num_codes: K.
        dim: D.
        keys: role ("codebook", "counts", "sums", "initted", "projection", …) to raw key in the file. Every
            view has a "codebook": the stored one, or the table that it is computed from.
        start_count: the value that this library's EMA counts start from; None where unknown.
        smoothing: epsilon of the layout's Laplace smoothing of the counts; 0 where it uses none, None where
            that is unknown.
        default_decay: the library's default EMA decay; None where unknown.
        lookup: how codes are chosen, where the layout tells; None where it does not: by Euclidean distance,
            or by angle where all rows have norm one.
        frozen: whether the tensor `keys["codebook"]` may rightly stay as it was initialised: what is
            trained is a projection behind it, or nothing at all. Never judge it as untrained.
        derived: whether the codebook is computed from several tensors, those of `keys`, and stored nowhere.
            Then it can only be written where it is the quotient of stored sums and counts.
        shared_with: names of further layers that use the very same tensors, in the file's order.
        copies: where the container stores these shared tensors once for each name, raw key to the raw keys of
            its copies, which are written with it.
        initted: the flag of data-driven initialisation: False, it is still to come (and will overwrite the
            codebook); True, it is done, or was never asked for; None, the file does not say.
        place: where the layer's rows lie in its tensors.
        load_codebook: reads the codebook as float32 [K, D].
        load_counts: reads the EMA counts as float32 [K]; None without counts.
        load_sums: reads the EMA sums as float32 [K, D]; None without sums.
    """

    name: str
    layout: str = ""
    confidence: Confidence
    num_codes: int
    dim: int
    keys: Mapping[str, str]
    start_count: float | None = None
    smoothing: float | None = None
    default_decay: float | None = None
    lookup: Lookup | None = None
    frozen: bool = False
    derived: bool = False
    shared_with: tuple[str, ...] = ()
    copies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    initted: bool | None = None
    place: Place = field(default_factory=Place)
    load_codebook: Callable[[], Array]
    load_counts: Callable[[], Array] | None = None
    load_sums: Callable[[], Array] | None = None

    @cached_property
    def codebook(self) -> Array:
        """The codebook, float32 [K, D]."""
        return self.load_codebook()

    @cached_property
    def counts(self) -> Array | None:
        """The EMA counts, float32 [K]; None where the layout stores none."""
        return self.load_counts and self.load_counts()

    @cached_property
    def sums(self) -> Array | None:
        """The EMA sums, float32 [K, D]; None where the layout stores none."""
        return self.load_sums and self.load_sums()

    @property
    def writable(self) -> bool:
        """Whether new codes can be written to the stored tensors."""
        there = {"sums", "counts"} if self.derived else {"codebook"}
        return there <= self.keys.keys()


def once_a_view(tell: Callable[[QuantizerView], Told]) -> Callable[[QuantizerView], Told]:
    """Compute a function of a view once; the result is forgotten with the view, and never changed."""
    known: WeakKeyDictionary[QuantizerView, Told] = WeakKeyDictionary()

    @wraps(tell)
    def told(view: QuantizerView) -> Told:
        if view not in known:
            known[view] = tell(view)
        return known[view]

    return told
