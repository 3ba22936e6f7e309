"""A VQ layer at work on a split: its vectors and codes, sample by sample, in whatever form it gives them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vqdoctor.capture.call import Call
from vqdoctor.capture.masks import MASKED, data_positions
from vqdoctor.capture.reader import Codes, Reader, Vectors
from vqdoctor.capture.vectors import rows
from vqdoctor.capture.watch import Watch


@dataclass(kw_only=True)
class Seen:
    """One layer at work in eval mode on one split.

    Attributes:
        z_e: input vectors, float32 [rows, positions, D]; a row is a sample, or a part of one where
            samples have different lengths.
        z_q_mean: mean output vector, float32 [D'].
        data: which positions are data and no padding, bool [rows, positions]; None where all are.
        indices: chosen codes, int64 [rows, positions · heads], -1 where masked; None where the layer's
            output does not show them.
        samples: the sample that each row belongs to, int64 [rows].
        looked_up: the vectors as the codebook is asked for them, float32 [any, D of the codebook]; None
            where they are z_e or cannot be seen.
        as_stored: whether the output for a code is the stored row of it; None where that is not seen.
        grid: lengths of the axes that the positions come from, (4, 4) of an image; () where calls differ.
    """

    z_e: Vectors
    z_q_mean: torch.Tensor
    indices: Codes | None
    samples: NDArray[np.int64]
    data: NDArray[np.bool_] | None = None
    looked_up: Vectors | None = None
    as_stored: bool | None = None
    grid: tuple[int, ...] = ()

    def without_masked(self, codes: Codes) -> Codes:
        """Return codes [rows, positions · heads] with -1 at the positions that are masked."""
        if self.data is None:
            return codes
        heads = codes.shape[1] // self.data.shape[1]
        return np.where(np.repeat(self.data, heads, axis=1), codes, MASKED)

    @property
    def vectors(self) -> Vectors:
        """The z_e of positions that are data, float32 [N, D]."""
        return self.z_e.reshape(-1, self.z_e.shape[-1]) if self.data is None else self.z_e[self.data]

    @property
    def asked(self) -> Vectors:
        """The vectors of positions that are data as the codebook is asked for them, float32 [N, D]."""
        if self.looked_up is None:
            return self.vectors
        fits = self.data is not None and len(self.looked_up) == self.data.size
        return self.looked_up[self.data.ravel()] if fits and self.data is not None else self.looked_up

    @property
    def asked_and_chosen(self) -> tuple[Vectors, Codes] | None:
        """The vectors [N, D] that the codebook is asked for and the codes [N] that the layer itself chose.

        None where the codes are not seen, or do not belong to these vectors one by one.
        """
        if self.indices is None:
            return None
        chosen = self.indices[self.indices != MASKED]
        return (self.asked, chosen) if 0 < len(chosen) == len(self.asked) else None


def read(
    reader: Reader,
    calls: Sequence[Call],
    lookups: Sequence[Call],
    samples: int | None,
    mask: torch.Tensor | None = None,
) -> Seen | None:
    """Return the layer as one batch's calls show it; None where there is none.

    Calls of equally many rows (a layer that is called twice, levels that share one codebook) are taken
    for further positions of the same samples. A batch axis that holds several rows of each sample, such
    as frames, is folded into positions; so are calls of more rows than others, as at several scales.

    Args:
        reader: of the layer.
        calls: the layer's calls with a z_q.
        lookups: the calls of the module that looks its codes up.
        samples: how many samples the batch had; None where that is unknown.
        mask: the task's mask of the batch.
    """
    rows_of = [rows(call.z_e, reader.axis(call)).shape[0] for call in calls]
    samples = math.gcd(*rows_of) if samples is None and len(set(rows_of)) > 1 else samples
    parts = [_one(reader, call, samples, mask) for call in calls]
    forms = [(len(part.z_e), part.z_e.shape[-1], part.z_q_mean.shape) for part in parts]
    parts = [part for part, form in zip(parts, forms, strict=True) if form == forms[0]]
    if not parts:
        return None
    stored = [kept for call in lookups[:1] or calls[:1] if (kept := reader.as_stored(call)) is not None]
    asked = [vectors for call in lookups if (vectors := reader.looked_up(call)) is not None]
    indices = [part.indices for part in parts if part.indices is not None]
    data = [part.data for part in parts if part.data is not None]
    return Seen(
        z_e=np.concatenate([part.z_e for part in parts], axis=1),
        data=np.concatenate(data, axis=1) if len(data) == len(parts) else None,
        z_q_mean=torch.stack([part.z_q_mean for part in parts]).mean(0),
        indices=np.concatenate(indices, axis=1) if len(indices) == len(parts) else None,
        samples=parts[0].samples,
        looked_up=np.concatenate(asked) if asked else None,
        as_stored=stored[0] if stored else None,
        grid=parts[0].grid if len(parts) == 1 else (),
    )


def _one(reader: Reader, call: Call, samples: int | None, mask: torch.Tensor | None) -> Seen:
    assert call.z_q is not None
    axis = reader.axis(call)
    z_e = rows(call.z_e, axis).float().cpu().numpy()
    codes = reader.codes(call)
    given = None if codes is None else torch.from_numpy(codes)
    kept = data_positions(given, None if mask is None else mask.cpu(), *z_e.shape[:2])
    data = None if kept is None else kept.numpy()
    if samples and len(z_e) > samples and len(z_e) % samples == 0:
        z_e = z_e.reshape(samples, -1, z_e.shape[-1])
        codes = None if codes is None else codes.reshape(samples, -1)
        data = None if data is None else data.reshape(samples, -1)
    return Seen(
        z_e=z_e,
        data=data,
        z_q_mean=rows(call.z_q, axis).float().mean((0, 1)),
        indices=codes,
        samples=np.arange(len(z_e)),
        grid=tuple(n for i, n in enumerate(call.z_e.shape) if i not in (0, axis % call.z_e.ndim)),
    )


def join(parts: Sequence[Seen]) -> Seen:
    """Return the batches of a split as one; samples of different lengths share their common divisor."""
    first = np.cumsum([0, *(int(part.samples[-1]) + 1 for part in parts)])
    length = math.gcd(*(part.z_e.shape[1] for part in parts))
    weights = torch.tensor([float(part.z_e.shape[0] * part.z_e.shape[1]) for part in parts])
    weights = weights.to(parts[0].z_q_mean.device)
    means = torch.stack([part.z_q_mean for part in parts])
    asked = [part.looked_up for part in parts if part.looked_up is not None]
    starts = zip(first, parts, strict=False)
    samples = [np.repeat(part.samples + start, part.z_e.shape[1] // length) for start, part in starts]
    return Seen(
        z_e=np.concatenate([p.z_e.reshape(-1, length, p.z_e.shape[-1]) for p in parts]),
        data=_joined_data(parts, length),
        z_q_mean=(means * weights[:, None]).sum(0) / weights.sum(),
        indices=_joined_codes(parts, length),
        samples=np.concatenate(samples),
        looked_up=np.concatenate(asked) if asked else None,
        as_stored=parts[0].as_stored,
        grid=parts[0].grid if all(part.grid == parts[0].grid for part in parts) else (),
    )


def _joined_data(parts: Sequence[Seen], length: int) -> NDArray[np.bool_] | None:
    if all(part.data is None for part in parts):
        return None
    data = [np.ones(p.z_e.shape[:2], dtype=np.bool_) if p.data is None else p.data for p in parts]
    return np.concatenate([part.reshape(-1, length) for part in data])


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
    """Return the codes that a batch's calls show of a layer without z_q, [rows, positions]; None if none do.

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
