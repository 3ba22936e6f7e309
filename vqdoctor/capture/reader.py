"""Reading a layer's calls: its vectors and codes, whatever form it gives them in."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from vqdoctor.capture.call import Call
from vqdoctor.capture.masks import MASKED
from vqdoctor.capture.numbering import Numbering
from vqdoctor.capture.vectors import by_position, channel_axis, rows
from vqdoctor.capture.watch import Watch
from vqdoctor.layouts.live_rows import is_unit, live_mask
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.metrics.match import nearest, unit

Vectors = NDArray[np.float32]
Codes = NDArray[np.int64]

_HEAD = re.compile(r"\[head (\d+)\]$")
EXACT = 1e-3
"""An output is a code when it is nearer to it than this share of the codes' spread: rounding only."""
OFF = 0.05
"""An output is another vector than the stored code when it is off by over this share of the codes' spread."""
ANGLE = "angle"
ASKED = 512
"""Choices that are compared: a share of 512 is known to 4 points."""
ALWAYS, OFTEN = 0.99, 0.9
"""Least share of choices that are nearest by angle, and largest share of them that are nearest in space, at
which only directions count. Rounding leaves a sound lookup above the first, whichever it is."""
MOST_CODES = 2**24
"""Codes that are counted one by one; of more, as of 40 bits, no sample would tell anything."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Reader:
    """Reads one layer's calls.

    Attributes:
        view: the layer.
        heads: how many views share its module and codebook tensor, as its heads.
        numbering: of the outputs of a layer that has no codebook and gives no indices.
        axes: shapes of a call to the axis that was found for them: where two axes fit, it takes a look at all
            vectors, which a training cannot afford at every step.
        shown: what its calls have shown of a layer whose layout does not say how it compares: "angle" once
            its outputs or choices prove that only directions count.
    """

    view: QuantizerView
    heads: int = 1
    numbering: Numbering = field(default_factory=Numbering)
    axes: dict[tuple[torch.Size | None, ...], int] = field(default_factory=dict)
    shown: set[str] = field(default_factory=set)

    @cached_property
    def head(self) -> int | None:
        """Which head this is; None for a layer that is whole."""
        found = _HEAD.search(self.view.name)
        return int(found.group(1)) if found and self.heads > 1 else None

    def axis(self, call: Call) -> int:
        """Return the axis of a call's z_e that holds its vectors' elements."""
        return self.axis_of(call.z_e, call.indices, call.z_q)

    def axis_of(
        self, z_e: torch.Tensor, indices: torch.Tensor | None = None, z_q: torch.Tensor | None = None
    ) -> int:
        """Return the axis of z_e that holds its vectors' elements, by what was put out for it."""
        shapes = tuple(None if t is None else t.shape for t in (z_e, indices, z_q))
        if shapes not in self.axes:
            self.axes[shapes] = channel_axis(z_e.shape, self.view.dim, shapes[1], z_q)
        return self.axes[shapes]

    def lookups(self, watched: Watch) -> list[Call]:
        """Return the calls whose vectors have the codebook's dimension; a method is nearer to it."""
        calls = watched.methods or watched.forwards
        # on their way to the codebook, vectors have one head's dimension or all heads' at once
        dims = (self.view.dim, self.view.dim * (1 if self.head is None else self.heads))
        return [c for c in calls if c.z_e.ndim > 1 and c.z_e.shape[self.axis(c)] in dims]

    def codes(self, call: Call) -> Codes | None:
        """Return the call's codes, [B, positions · heads]; None where its output does not show them."""
        if self.view.num_codes > MOST_CODES:
            return None
        given = self.given(call)
        if given is not None:
            return given.cpu().numpy()
        if call.z_q is None:
            return None
        z_q = rows(call.z_q, self.axis(call))
        return self._from_output(z_q) if "codebook" in self.view.keys else self._numbered(z_q)

    def given(self, call: Call) -> torch.Tensor | None:
        """Return the codes that the layer itself gave, int64 [B, positions · heads]; None if it gave none."""
        axis = self.axis(call)
        positions = [size for i, size in enumerate(call.z_e.shape) if i != axis]
        for integers in call.integers:
            found = by_position(integers, positions)
            if found is None or not found.numel():
                continue
            within = int(found.min()) >= MASKED and int(found.max()) < self.view.num_codes
            if within and (self.head is None or found.shape[-1] == self.heads):
                chosen = found if self.head is None else found[..., self.head : self.head + 1]
                return chosen.flatten(1).long()
        return None

    def _numbered(self, z_q: torch.Tensor) -> Codes | None:
        """Return the outputs of a layer without a codebook by number, in the order in which they came."""
        vectors = z_q.detach().float().cpu().numpy()
        codes = self.numbering.of(vectors.reshape(-1, vectors.shape[-1]))
        return None if len(self.numbering) > self.view.num_codes else codes.reshape(vectors.shape[:2])

    def _from_output(self, z_q: torch.Tensor) -> Codes | None:
        """Return the codes that an output [B, positions, D] consists of; None unless all of it is codes."""
        parts = self._parts(z_q)
        if parts is None or not self.has_codebook:
            return None
        codebook = self.view.codebook
        found = _rows_among(parts, codebook)
        if (
            found is None
            and self.view.lookup is None
            and (found := _rows_among(parts, unit(codebook))) is not None
        ):
            self.shown.add(ANGLE)
        return found

    def learn(self, vectors: Vectors, chosen: Codes) -> None:
        """Note whether the choices [N] for vectors [N, D] are the codes nearest by angle, not in space."""
        if not self.has_codebook or self.view.lookup is not None or vectors.shape[1] != self.view.dim:
            return
        if self.by_angle or not len(chosen):
            return
        some = np.linspace(0, len(chosen) - 1, min(len(chosen), ASKED), dtype=np.int64)
        tables = (self.view.codebook, unit(self.view.codebook))
        given = (vectors[some], unit(vectors[some]))
        in_space, by_angle = (
            float((nearest(asked, table).indices == chosen[some]).mean())
            for asked, table in zip(given, tables, strict=True)
        )
        if by_angle >= ALWAYS and in_space < OFTEN:
            self.shown.add(ANGLE)

    def _parts(self, vectors: torch.Tensor) -> Vectors | None:
        """Return the part of vectors [B, positions, any] that is this head's, or all heads' one by one."""
        dim, size = self.view.dim, vectors.shape[-1]
        if size % dim or (self.head is not None and size != self.heads * dim):
            return None
        if self.head is not None:
            vectors = vectors[..., self.head * dim : (self.head + 1) * dim]
        return vectors.detach().float().cpu().numpy().reshape(len(vectors), -1, dim)

    @property
    def has_codebook(self) -> bool:
        """Whether the layer has a finite codebook: FSQ and LFQ have none."""
        return "codebook" in self.view.keys and bool(np.isfinite(self.view.codebook).all())

    def looked_up(self, call: Call) -> Vectors | None:
        """Return the vectors of a lookup module's call as the codebook is asked for them, [any, D]."""
        z, dim = call.z_e, self.view.dim
        if self.head is not None and z.ndim == 4 and z.shape[0] == self.heads and z.shape[-1] == dim:
            z = z[self.head]
        axis = self.axis(call) if z is call.z_e else z.ndim - 1
        if z.shape[axis] == dim:
            return rows(z, axis).detach().float().cpu().numpy().reshape(-1, dim)
        parts = None if self.head is None else self._parts(rows(z, axis))
        return None if parts is None else parts.reshape(-1, dim)

    def as_stored(self, call: Call) -> bool | None:
        """Whether a lookup module's call put out the stored rows of its codes; None if that is not seen."""
        if call.z_q is None or not self.has_codebook or (self.head is not None and call.z_e.ndim == 4):
            return None
        codes, outputs = self.codes(call), self._parts(rows(call.z_q, self.axis(call)))
        if codes is None or outputs is None or codes.shape != outputs.shape[:2]:
            return None
        if codes.size == 0 or codes.min() < 0:
            return None
        stored = self.view.codebook[codes]
        apart = np.linalg.norm(outputs - stored, axis=-1)
        spread = np.linalg.norm(stored - stored.mean(axis=(0, 1)), axis=-1).mean()
        return bool(np.median(apart) <= OFF * spread)

    def nearest(self, z_e: Vectors) -> Codes | None:
        """Return the codes nearest to z_e [rows, positions, D]; None where distance does not choose them."""
        if self.view.lookup == "logits" or z_e.shape[-1] != self.view.dim or not self.has_codebook:
            return None
        found = nearest(self.as_compared(z_e.reshape(-1, self.view.dim)), self.view.codebook)
        return found.indices.reshape(z_e.shape[:2])

    @property
    def by_angle(self) -> bool:
        """Whether vectors and codes are compared by their angle."""
        return ANGLE in self.shown or self._has_unit_codes

    @cached_property
    def _has_unit_codes(self) -> bool:
        if self.view.lookup is not None:
            return self.view.lookup == "cosine"
        norms, _, live = live_mask(self.view)
        return is_unit(norms, live)

    def as_compared(self, vectors: Vectors) -> Vectors:
        """Return vectors or codes [N, D] at the length at which they are compared."""
        return unit(vectors) if self.by_angle else vectors


def _rows_among(parts: Vectors, codebook: Vectors) -> Codes | None:
    """Return which rows of a codebook the outputs [B, positions, D] are; None unless all are such rows."""
    found = nearest(parts.reshape(-1, codebook.shape[1]), codebook)
    spread = float(np.linalg.norm(codebook - codebook.mean(axis=0), axis=1).mean())
    if len(found.indices) == 0 or float(found.vector_distance.max()) > EXACT * spread:
        return None
    return found.indices.reshape(len(parts), -1)
