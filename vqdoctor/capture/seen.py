"""What a VQ layer did on a split: its vectors and codes, sample by sample, whatever form it gives them in."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from vqdoctor.capture.vectors import by_position, channel_axis, rows
from vqdoctor.capture.watch import Call, Watch
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
MOST_CODES = 2**24
"""Codes that are counted one by one; of more, as of 40 bits, no sample would tell anything."""
MASKED = -1
"""What libraries give for the code of a masked vector."""


@dataclass(kw_only=True)
class Seen:
    """What one layer did in eval mode on one split.

    Attributes:
        z_e: input vectors, float32 [rows, positions, D]; a row is a sample, or a part of one where
            samples have different lengths.
        z_q_mean: mean output vector, float32 [D'].
        indices: chosen codes, int64 [rows, positions · heads], -1 where masked; None where the layer's
            output does not tell them.
        axis: the axis of the vectors' elements.
        samples: the sample that each row belongs to, int64 [rows].
        looked_up: the vectors as the codebook is asked for them, float32 [any, D of the codebook]; None
            where they are z_e or cannot be seen.
        as_stored: whether what is put out for a code is the stored row of it; None where that is not seen.
    """

    z_e: Vectors
    z_q_mean: torch.Tensor
    indices: Codes | None
    axis: int
    samples: NDArray[np.int64]
    looked_up: Vectors | None = None
    as_stored: bool | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Reader:
    """Reads one layer's calls.

    Attributes:
        view: the layer.
        heads: how many views share its module and codebook tensor, as its heads.
        numbers: the outputs seen so far, of a layer that has no codebook and gives no indices.
        axes: shapes of a call to the axis that was found for them: where two axes fit, it takes a look at all
            vectors, which a training cannot afford at every step.
    """

    view: QuantizerView
    heads: int = 1
    numbers: dict[bytes, int] = field(default_factory=dict)
    axes: dict[tuple[torch.Size | None, ...], int] = field(default_factory=dict)

    @cached_property
    def head(self) -> int | None:
        """Which head this is; None for a layer that is whole."""
        found = _HEAD.search(self.view.name)
        return int(found.group(1)) if found and self.heads > 1 else None

    @property
    def dims(self) -> tuple[int, ...]:
        """Dimensions that vectors may have on their way to the codebook: a head's, or all heads' at once."""
        return (self.view.dim,) if self.head is None else (self.view.dim, self.heads * self.view.dim)

    def axis(self, call: Call) -> int:
        """Return the axis of z_e that holds its vectors' elements."""
        shapes = tuple(None if t is None else t.shape for t in (call.z_e, call.indices, call.z_q))
        if shapes not in self.axes:
            indices = None if call.indices is None else tuple(call.indices.shape)
            self.axes[shapes] = channel_axis(tuple(call.z_e.shape), self.view.dim, indices, call.z_q)
        return self.axes[shapes]

    def codes(self, call: Call) -> Codes | None:
        """Return the call's codes, [B, positions · heads]; None where its output does not tell them."""
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
            if found is not None and self._are_codes(found):
                chosen = found if self.head is None else found[..., self.head : self.head + 1]
                return chosen.flatten(1).long()
        return None

    def _numbered(self, z_q: torch.Tensor) -> Codes | None:
        """Return the outputs of a layer without a codebook by number, in the order in which they came."""
        vectors = z_q.float().cpu().numpy()
        step = EXACT * max(float(np.abs(vectors).max(initial=0.0)), 1e-12)
        whole = np.round(vectors.reshape(-1, vectors.shape[-1]) / step).astype(np.int64)
        found, which = np.unique(whole, axis=0, return_inverse=True)
        numbers = [self.numbers.setdefault(row.tobytes(), len(self.numbers)) for row in found]
        if len(self.numbers) > self.view.num_codes:
            return None
        return np.array(numbers, dtype=np.int64)[which.ravel()].reshape(vectors.shape[:2])

    def _are_codes(self, found: torch.Tensor) -> bool:
        if self.head is not None and found.shape[-1] != self.heads:
            return False
        return found.numel() > 0 and int(found.min()) >= MASKED and int(found.max()) < self.view.num_codes

    def _from_output(self, z_q: torch.Tensor) -> Codes | None:
        """Return the codes that an output [B, positions, D] consists of; None unless all of it is codes."""
        parts = self._parts(z_q)
        if parts is None or not self.has_codebook:
            return None
        codebook = self.view.codebook
        found = nearest(parts.reshape(-1, self.view.dim), codebook)
        spread = float(np.linalg.norm(codebook - codebook.mean(axis=0), axis=1).mean())
        if len(found.indices) == 0 or float(found.vector_distance.max()) > EXACT * spread:
            return None
        return found.indices.reshape(len(parts), -1)

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

    @cached_property
    def by_angle(self) -> bool:
        """Whether vectors and codes are compared by their angle."""
        if self.view.lookup is not None:
            return self.view.lookup == "cosine"
        norms, _, live = live_mask(self.view)
        return is_unit(norms, live)

    def as_compared(self, vectors: Vectors) -> Vectors:
        """Return vectors or codes [N, D] at the length at which they are compared."""
        return unit(vectors) if self.by_angle else vectors


def read(reader: Reader, calls: Sequence[Call], lookups: Sequence[Call], samples: int | None) -> Seen | None:
    """Return what one batch's calls showed; None where nothing tells.

    Calls of equally many rows (a layer that is called twice, levels that share one codebook) are taken
    for further positions of the same samples. A batch axis that holds several rows of each sample, such
    as frames, is folded into positions.

    Args:
        reader: of the layer.
        calls: the layer's calls with a z_q.
        lookups: the calls of the module that looks its codes up.
        samples: how many samples the batch had; None where nothing tells.
    """
    parts = [_one(reader, call, samples) for call in calls]
    parts = [part for part in parts if len(part.z_e) == len(parts[0].z_e) and _fits(part, parts[0])]
    if not parts:
        return None
    stored = [kept for call in lookups[:1] or calls[:1] if (kept := reader.as_stored(call)) is not None]
    asked = [vectors for call in lookups if (vectors := reader.looked_up(call)) is not None]
    indices = [part.indices for part in parts if part.indices is not None]
    return Seen(
        z_e=np.concatenate([part.z_e for part in parts], axis=1),
        z_q_mean=torch.stack([part.z_q_mean for part in parts]).mean(0),
        indices=np.concatenate(indices, axis=1) if len(indices) == len(parts) else None,
        axis=parts[0].axis,
        samples=parts[0].samples,
        looked_up=np.concatenate(asked) if asked else None,
        as_stored=stored[0] if stored else None,
    )


def _fits(part: Seen, first: Seen) -> bool:
    return part.z_e.shape[-1] == first.z_e.shape[-1] and part.z_q_mean.shape == first.z_q_mean.shape


def _one(reader: Reader, call: Call, samples: int | None) -> Seen:
    assert call.z_q is not None
    axis = reader.axis(call)
    z_e = rows(call.z_e, axis).float().cpu().numpy()
    codes = reader.codes(call)
    if samples and len(z_e) > samples and len(z_e) % samples == 0:
        z_e = z_e.reshape(samples, -1, z_e.shape[-1])
        codes = None if codes is None else codes.reshape(samples, -1)
    return Seen(
        z_e=z_e,
        z_q_mean=rows(call.z_q, axis).float().mean((0, 1)),
        indices=codes,
        axis=axis,
        samples=np.arange(len(z_e)),
    )


def join(parts: Sequence[Seen]) -> Seen:
    """Return the batches of a split as one; samples of different lengths share their common divisor."""
    first = np.cumsum([0, *(int(part.samples[-1]) + 1 for part in parts)])
    length = math.gcd(*(part.z_e.shape[1] for part in parts))
    weights = torch.tensor([float(part.z_e.shape[0] * part.z_e.shape[1]) for part in parts])
    weights = weights.to(parts[0].z_q_mean.device)
    means = torch.stack([part.z_q_mean for part in parts])
    asked = [part.looked_up for part in parts if part.looked_up is not None]
    return Seen(
        z_e=np.concatenate([p.z_e.reshape(-1, length, p.z_e.shape[-1]) for p in parts]),
        z_q_mean=(means * weights[:, None]).sum(0) / weights.sum(),
        indices=_joined_codes(parts, length),
        axis=parts[0].axis,
        samples=np.concatenate(
            [
                np.repeat(part.samples + start, part.z_e.shape[1] // length)
                for start, part in zip(first, parts, strict=False)
            ]
        ),
        looked_up=np.concatenate(asked) if asked else None,
        as_stored=parts[0].as_stored,
    )


def _joined_codes(parts: Sequence[Seen], length: int) -> Codes | None:
    """Return all codes, as many in a row as its positions have heads."""
    found = []
    for part in parts:
        if part.indices is None:
            return None
        heads = part.indices.shape[1] // part.z_e.shape[1]
        found.append(part.indices.reshape(-1, length * heads))
    return np.concatenate(found)


def fetched(reader: Reader, watched: Watch) -> Codes | None:
    """Return the codes that a batch's calls tell of a layer without z_q, [rows, positions]; None if none do.

    Either a table was asked for them, or the layer gives indices alone. A table that is asked for each of
    its rows in turn is looked over, not used.
    """
    size = reader.view.num_codes
    asked = [call.indices for call in watched.calls if call.indices is not None] or [
        t for t in watched.fetched if not (t.ndim == 1 and torch.equal(t, torch.arange(len(t)).to(t)))
    ]
    fitting = [t for t in asked if t.numel() and int(t.min()) >= MASKED and int(t.max()) < size]
    parts = [t.reshape(len(t), -1).long().cpu().numpy() for t in fitting]
    parts = [part for part in parts if len(part) == len(parts[0])]
    return np.concatenate(parts, axis=1) if parts else None
