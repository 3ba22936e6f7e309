"""A tensor that stays in its file until it is asked for."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import as_strided

from vqdoctor.checkpoint.dtypes import AnyArray, DType
from vqdoctor.checkpoint.files import Damaged, guarded
from vqdoctor.checkpoint.records import Record

MAX_DIMENSIONS = 64
MAX_ELEMENTS = 1 << 48
SAMPLE_BLOCK = 1024
EXPANDED_BYTES = 16 << 20
"""A tensor of stride 0 (`expand`) may be larger than its storage, but only up to this size."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LazyTensor:
    """One stored tensor: what it is at once, its values when asked.

    Attributes:
        path: the file, for error messages.
        key: raw dotted path in the tree ("state_dict.vq._codebook.embed").
        shape: shape as stored.
        strides: step of each dimension, in elements.
        offset: first element, counted in elements from the start of the record.
        element: the element type.
        big_endian: whether the elements are stored with the highest byte first.
        record: the bytes that it lies in.
        storage_id: the same for tensors that share memory.
        is_parameter: True if it was saved as an `nn.Parameter`; None if unknown, as for every
            tensor of a state dict, parameter or not.
    """

    path: Path
    key: str = ""
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    element: DType = field(repr=False)
    big_endian: bool = field(default=False, repr=False)
    record: Record = field(repr=False)
    storage_id: Hashable
    is_parameter: bool | None = None

    def __post_init__(self) -> None:
        """Refuse a shape that its record cannot hold, before anything is touched.

        Raises:
            Damaged: if the shape is forged.
        """
        sizes = (*self.shape, *self.strides, self.offset)
        if len(self.shape) != len(self.strides) or len(self.shape) > MAX_DIMENSIONS:
            raise Damaged("forged: a tensor's shape and strides do not fit each other")
        if any(n < 0 for n in sizes) or math.prod(n for n in self.shape if n) > MAX_ELEMENTS:
            raise Damaged("forged: a tensor states an impossible shape")
        if not self.numel:
            return
        if (self.offset + self.span) * self.element.itemsize > self.record.size:
            raise Damaged("forged: a tensor's shape asks for more than its record holds")
        if self.nbytes > max(self.record.size, EXPANDED_BYTES):
            raise Damaged("forged: a tensor of stride zero is far larger than its record")

    @property
    def dtype(self) -> str:
        """Element type as torch names it, without "torch."."""
        return self.element.name

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that its elements take as stored."""
        return self.numel * self.element.itemsize

    @property
    def span(self) -> int:
        """Elements from its first to its last, in the record."""
        return 1 + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))

    @property
    def _stored(self) -> np.dtype[np.generic]:
        return np.dtype((">" if self.big_endian else "<") + self.element.stored)

    def named(self, key: str) -> LazyTensor:
        """Name this tensor, or return a copy of that name where it has one already."""
        if self.key:
            return replace(self, key=key)
        # The one thing that a tensor does not know when it is made, since the tree comes after it.
        object.__setattr__(self, "key", key)
        return self

    def read(self) -> AnyArray:
        """Return the values, read-only, in `shape`; bfloat16 and float8 become float32.

        The record is compared with its checksum on the first read, where one is recorded.

        Raises:
            CheckpointError: if the bytes are damaged or gone.
        """
        with guarded(self.path):
            if not self.numel:
                return _frozen(self.element.decode(np.empty(self.shape, self._stored)))
            self.record.check()
            size = self._stored.itemsize
            raw = np.frombuffer(self.record.view(self.offset * size, self.span * size), self._stored)
            # The step of a dimension of one is never taken, and may be anything.
            steps = [step * size if n > 1 else size for n, step in zip(self.shape, self.strides, strict=True)]
            return _frozen(self.element.decode(as_strided(raw, self.shape, steps, writeable=False)))

    def sample(self, count: int) -> AnyArray:
        """Return up to `count` values as a flat array, or all of them where there are fewer.

        They come in blocks of 1024 neighbours spread evenly over the tensor, in no promised order.
        They are read, not mapped, and not checked: memory stays flat, whatever the tensor's size.

        Raises:
            CheckpointError: if the bytes are gone.
        """
        with guarded(self.path):
            size = self._stored.itemsize
            blocks = [self.record.pread(at * size, n * size) for at, n in self._blocks(count)]
            return _frozen(self.element.decode(np.frombuffer(b"".join(blocks), self._stored)))

    def raw_chunks(self) -> Iterator[bytes]:
        """Yield the stored bytes from its first element to its last, for hashing."""
        if self.numel:
            size = self.element.itemsize
            yield from self.record.chunks(self.offset * size, self.span * size)

    def _blocks(self, count: int) -> Iterator[tuple[int, int]]:
        """Yield (first element, elements) of the blocks that make a sample of `count`."""
        if count <= 0 or not self.numel:
            return
        run, outer = _runs(self.shape, self.strides)
        per_run = -(-run // SAMPLE_BLOCK)
        slots = per_run * math.prod(n for _, n in outer)
        wanted = slots if count >= self.numel else min(slots, -(-count // min(run, SAMPLE_BLOCK)))
        for i in range(wanted):
            # The last slot belongs to the sample: damage likes the end of a file.
            which, block = divmod(i * (slots - 1) // max(wanted - 1, 1), per_run)
            start = self.offset
            for step, n in outer:
                which, index = divmod(which, n)
                start += index * step
            first = block * SAMPLE_BLOCK
            n = min(SAMPLE_BLOCK, run - first, count)
            yield start + first, n
            count -= n
            if not count:
                return


def _runs(shape: Sequence[int], strides: Sequence[int]) -> tuple[int, list[tuple[int, int]]]:
    """Return the length of a tensor's unbroken runs of elements, and (step, size) of what repeats them.

    Dimensions of stride zero only repeat the same elements, and are left out.
    """
    outer = sorted((step, n) for n, step in zip(shape, strides, strict=True) if n > 1 and step > 0)
    run = 1
    while outer and outer[0][0] == run:
        run *= outer.pop(0)[1]
    return run, outer


def _frozen(values: AnyArray) -> AnyArray:
    values.setflags(write=False)
    return values
