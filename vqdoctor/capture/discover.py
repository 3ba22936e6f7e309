"""Finding VQ layers by their outputs, where no key of the state dict gives them away.

FSQ, LFQ and BSQ have no codebook at all, and a user's own may have any name. But what quantizes shows
it: many different vectors go in, and few different ones come out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from vqdoctor.capture.call import Call
from vqdoctor.capture.stored import stored, tied
from vqdoctor.capture.tables import Tables
from vqdoctor.capture.vectors import by_position, rows
from vqdoctor.capture.watch import watch_each
from vqdoctor.core.frozen import frozen
from vqdoctor.core.levels import Confidence
from vqdoctor.layouts.view import Array, QuantizerView

IMPLICIT = "implicit"
"""Layout of a layer without a codebook: its codes are combinations of levels."""
BY_OUTPUT = "found by its output"
"""Layout of a layer whose codebook has a name of no meaning."""

ENOUGH = 4096
"""Vectors of a call that are looked at, where they are not long."""
MOST_NUMBERS = 2**20
"""Numbers of a call that are looked at: fewer vectors of them where they are long, such as whole clips."""
FEWEST = 32
"""Vectors under which a call is no evidence."""
FEW = 4
"""A quantizing module puts out at least this many times fewer different vectors than it is given."""
MOSTLY = 0.99
"""Share of the vectors whose code has to be the nearest one; of two equally near, either may be chosen."""
ROUNDING = 1e-4
"""Share of the spread of the outputs under which differences are rounding."""
FLOAT = 1e-6
"""The same share of the length where the outputs hardly differ: some units of float32's last place."""
MOST_LEVELS = 64
"""Different values of a channel up to which it is a channel of levels (FSQ's usual levels are 3 to 16)."""
FEWEST_CODES = 9
"""Codes in use from which channels that each tell all of them apart are hardly levels: few levels combine."""
_SIZES = ("codebook_size", "num_codes", "n_codes", "num_embeddings", "n_embed", "n_e", "vocab_size")
_LEVELS = ("levels", "_levels")
_BASES = ("basis", "_basis", "mask")

Radix = tuple[tuple[int, ...], tuple[int, ...]]
"""Basis and levels of each channel: its level in a code is code // basis % levels."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Quantizing:
    """A module that quantizes.

    Attributes:
        path: where it is.
        outputs: the different vectors that it put out, one of each code, float32 [any, D].
        num_codes: how many codes it has; None where that is unknown.
        gives_codes: whether integers come out with the vectors that tell these.
        codebooks: how many codes each vector gets, each of a codebook of its own.
        radix: how its codes are made of levels; None where it does not say.
    """

    path: str
    outputs: torch.Tensor
    num_codes: int | None
    gives_codes: bool = False
    codebooks: int = 1
    radix: Radix | None = None


@frozen
class Discovered:
    """The layers that were found.

    Attributes:
        explicit: layers with a codebook in the state dict.
        implicit: layers without one; their views have no keys, and their codebook cannot be read.
        places: layer name to the path of its module, of all.
        radixes: layer name to how its codes are made of levels, of the implicit ones that say so.
        rounding: the form of the stand-in where the model itself rounds, see `models.roundings`; else empty.
    """

    explicit: tuple[QuantizerView, ...] = ()
    implicit: tuple[QuantizerView, ...] = ()
    places: Mapping[str, str] = field(default_factory=dict)
    radixes: Mapping[str, Radix] = field(default_factory=dict)
    rounding: Mapping[str, bool] = field(default_factory=dict)

    @property
    def views(self) -> tuple[QuantizerView, ...]:
        """All of them."""
        return (*self.explicit, *self.implicit)

    def only(self, chosen: Callable[[str], bool]) -> Discovered:
        """Return the layers whose name is chosen."""
        return replace(
            self,
            explicit=tuple(view for view in self.explicit if chosen(view.name)),
            implicit=tuple(view for view in self.implicit if chosen(view.name)),
        )


def discover(model: nn.Module, run: Callable[[nn.Module], object], known: Collection[str] = ()) -> Discovered:
    """Return the VQ layers that show by their output, other than those at the paths that are known.

    An activation of few values may look like a layer without a codebook (spikes, 4-bit weights' outputs), so
    that one that gives no codes counts only where it is the only VQ layer.

    Args:
        model: a working copy; it is put in eval mode and run once.
        run: runs a model on a batch.
        known: paths of modules that are VQ layers as is known already.
    """
    explicit: list[QuantizerView] = []
    without: list[QuantizerView] = []
    places: dict[str, str] = {}
    radixes: dict[str, Radix] = {}
    tables = Tables(model=model)
    for found in quantizing(model, run, tables):
        if any(_related(found.path, path) for path in known):
            continue
        name = found.path or "vq"
        table = tables.holding(found.outputs[:MOST_LEVELS], len(found.outputs), found.path)
        if table is not None:
            views = stored(name, model, run, table, BY_OUTPUT)
            explicit += views
            places.update((view.name, found.path) for view in views)
        elif not found.gives_codes and tables.holds_parts(found.outputs[:MOST_LEVELS], found.path):
            continue  # one table for all parts of a vector: its lookups show it
        elif found.num_codes is not None:
            several = found.codebooks > 1
            names = [f"{name}[head {i}]" for i in range(found.codebooks)] if several else [name]
            # codes in a table that is not saved: their channels take as many values as there are codes
            own = None if found.gives_codes else tables.unsaved_codes(found.outputs[:MOST_LEVELS])
            without += [implicit(one, found, own or found.num_codes) for one in names]
            radixes.update(dict.fromkeys(names, found.radix) if found.radix else {})
            places.update(dict.fromkeys(names, found.path))
    if known or explicit or any(view.confidence is Confidence.HIGH for view in without):
        without = [view for view in without if view.confidence is Confidence.HIGH]
    return Discovered(
        explicit=tied(explicit, model),
        implicit=tuple(without),
        places=places,
        radixes=radixes,
    )


def quantizing(
    model: nn.Module, run: Callable[[nn.Module], object], tables: Tables | None = None
) -> list[Quantizing]:
    """Return the innermost modules that quantize, in the model's order."""
    model.eval()
    tables = tables or Tables(model=model)
    modules = {
        path: module
        for path, module in model.named_modules()
        if not isinstance(module, nn.ModuleList | nn.ModuleDict)
    }
    with torch.no_grad(), watch_each(modules.values()) as watched:
        run(model)
    found: list[Quantizing] = []
    for path, module in reversed(modules.items()):  # children come after their parents
        if any(_related(path, inner.path) for inner in found):
            continue
        call = next((call for call in watched[module].forwards if call.z_q is not None), None)
        quantizer = None if call is None else read(path, module, call) or _of_table(path, call, tables)
        if quantizer is None:
            continue
        # one output may be a dead module's, and few may be the whole model's: then its own codebook proves it
        is_sure = quantizer.gives_codes or (len(quantizer.outputs) > 1 and path != "")
        outputs = quantizer.outputs
        held = None if is_sure else tables.holding(outputs[:MOST_LEVELS], len(outputs), path)
        if is_sure or (held is not None and (not path or held.name.startswith(f"{path}."))):
            found.append(quantizer)
    return found[::-1]


def _related(path: str, other: str) -> bool:
    inside = f"{path}.".startswith(f"{other}.") or f"{other}.".startswith(f"{path}.")
    return inside or not path or not other


def read(path: str, module: nn.Module, call: Call) -> Quantizing | None:
    """Return the module as a quantizer, on the axis along which its output repeats itself most."""
    assert call.z_q is not None
    last = call.z_e.ndim - 1
    axes = {2: [1], 3: [2, 1]}.get(call.z_e.ndim, [1, last] if last > 2 else [])
    read = [found for axis in axes if (found := _along(path, module, call, axis)) is not None]
    z_q = call.z_q
    if read and any(z_q.shape[axis] > 1 and bool(((z_q != 0).sum(dim=axis) == 1).all()) for axis in axes):
        return None  # one-hot: a choice, and the code is what is looked up for it
    # codes come out along the right axis alone, and single numbers repeat themselves more than vectors
    return min(
        read,
        key=lambda found: (not found.gives_codes, found.outputs.shape[1] == 1, len(found.outputs)),
        default=None,
    )


def _of_table(path: str, call: Call, tables: Tables) -> Quantizing | None:
    """Return the module as a quantizer, if what it puts out are rows of a table, or a stack of them, in it.

    Many codes, or groups of codes, may put out as many different vectors as come in.
    """
    assert call.z_q is not None
    if not path or call.z_q.shape != call.z_e.shape:
        return None
    for axis in {call.z_e.ndim - 1, 1}:
        z_q = _some(call.z_q, axis)[:MOST_LEVELS]
        outputs = _one_of_each(z_q, _rounded(z_q))
        is_enough = len(z_q) >= FEWEST and _varies(rows(call.z_q, axis))
        if is_enough and tables.holding(outputs, len(outputs), path, inside=True) is not None:
            return Quantizing(path=path, outputs=outputs, num_codes=None)
    return None


def _along(path: str, module: nn.Module, call: Call, axis: int) -> Quantizing | None:
    """Return the module as a quantizer of the vectors along an axis, if it is one."""
    assert call.z_q is not None
    positions, others = ([n for i, n in enumerate(t.shape) if i != axis] for t in (call.z_e, call.z_q))
    z_e, z_q = (_some(t, axis) for t in (call.z_e, call.z_q))
    if positions != others or len(z_e) < FEWEST or not (z_e.isfinite().all() and z_q.isfinite().all()):
        return None
    unrounded, z_q = z_q, _rounded(z_q)
    given, put_out = _different(z_e), _different(z_q)
    codes = _codes(call, positions, len(z_q))
    levels = _levels(z_e, z_q)
    radix = _radix(module)
    if codes is not None:
        # behind a dead encoder all vectors are alike: then the module's own word tells that it quantizes
        is_fewer = given > len(torch.unique(codes, dim=0)) or (given == 1 and radix is not None)
        is_one = is_fewer and _follows(z_q, codes)
    else:
        few = bool(levels) or (z_q.shape[1] > 1 and put_out <= given / FEW and bool(z_q.any()))
        is_one = few and (put_out == 1 or _varies(rows(call.z_q, axis)))
    if not is_one:
        return None
    outputs = _one_of_each(unrounded, z_q)
    highest = int(codes.max()) if codes is not None else len(outputs) - 1
    # channels that each tell most codes apart are no levels: the codes are made of a table, as in SimVQ
    own = _table_size(module, highest, outputs.shape[1])
    enough = len(outputs) >= FEWEST_CODES or (codes is not None and own is not None)
    is_table = radix is None and enough and len(levels) > 1 and min(levels) > len(outputs) / 2
    size = _size(module, highest, radix[1] if radix else () if is_table else levels)
    if size is None and (is_table or (codes is not None and codes.shape[1] == 1)):
        size = own or (highest + 1 if is_table else None)
    return Quantizing(
        path=path,
        outputs=outputs,
        num_codes=size,
        gives_codes=codes is not None,
        codebooks=1 if codes is None else codes.shape[1],
        radix=radix,
    )


def _rounded(z_q: torch.Tensor) -> torch.Tensor:
    """Return vectors as the codes that they are: z_e + (z_q - z_e).detach() rounds these a little.

    By the spread of the vectors: those far from 0 lie close together for their length.
    """
    length, spread = z_q.abs().max(), (z_q - z_q.mean(dim=0)).abs().max()
    step = torch.maximum(ROUNDING * spread, FLOAT * length).clamp_min(1e-16)
    return (z_q / step).round() * step


def _one_of_each(vectors: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
    """Return the first vector of each code, as it was put out.

    The rounding grows with the size of the codes, and a row of a table is told by the table's spread: far
    from 0 a rounded code lies too far away from its row.
    """
    different, which = torch.unique(rounded, dim=0, return_inverse=True)
    unset = torch.full((len(different),), len(vectors))
    return vectors[unset.scatter_reduce(0, which, torch.arange(len(vectors)), "amin")]


def _different(vectors: torch.Tensor) -> int:
    """Return how many different rows [any, D] has, by their products with one random vector: much faster."""
    along = torch.randn(vectors.shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shadow = (vectors.double() * along).sum(dim=1)  # equal rows have equal sums, which a matmul need not give
    return len(torch.unique(shadow))


def _some(tensor: torch.Tensor, axis: int) -> torch.Tensor:
    """Return the first vectors of [B, ..., D, ...], float32 [any, D]."""
    length = max(tensor.shape[axis], 1)
    most = min(ENOUGH, max(2 * FEWEST, MOST_NUMBERS // length))
    samples = most * length * len(tensor) // max(tensor.numel(), 1) + 1
    return rows(tensor[:samples], axis).flatten(0, 1)[:most].float().cpu()


def _varies(z_q: torch.Tensor) -> bool:
    """Whether [B, positions, D] differs among samples, unlike masks, and among positions, unlike pooling."""
    among_samples = len(z_q) < 2 or bool((z_q != z_q[:1]).any())
    return among_samples and (z_q.shape[1] < 2 or bool((z_q != z_q[:, :1]).any()))


def _radix(module: nn.Module) -> Radix | None:
    """Return by what the module's indices are put together of its channels' levels, if it says so."""
    levels, basis = _whole(module, _LEVELS), _whole(module, _BASES)
    if basis is not None and levels is None and sorted(basis) == [2**i for i in range(len(basis))]:
        levels = (2,) * len(basis)  # LFQ, BSQ
    return (basis, levels) if basis and levels and len(basis) == len(levels) else None


def _whole(module: nn.Module, names: Collection[str]) -> tuple[int, ...] | None:
    """Return the first of these attributes that is a list or tensor of positive whole numbers, or None.

    A buffer of levels may hold them as floats, 8.0 for 8.
    """
    for name in names:
        value = getattr(module, name, None)
        listed = value.tolist() if isinstance(value, torch.Tensor) and value.ndim == 1 else value
        if isinstance(listed, list | tuple) and listed and all(_is_whole(number) for number in listed):
            return tuple(map(int, listed))
    return None


def _is_whole(number: object) -> bool:
    return isinstance(number, int | float) and number > 0 and float(number).is_integer()


def _codes(call: Call, positions: list[int], vectors: int) -> torch.Tensor | None:
    """Return the integers that may be codes of the first vectors, [vectors, heads]."""
    for integers in call.integers:
        found = by_position(integers, positions)
        if found is not None and int(found.min()) >= 0:
            return found.flatten(0, 1)[:vectors].cpu()
    return None


def _follows(z_q: torch.Tensor, codes: torch.Tensor) -> bool:
    """Whether the output is a function of the codes, as far as codes that occur twice can tell."""
    _, which, counts = torch.unique(codes, dim=0, return_inverse=True, return_counts=True)
    sums = torch.zeros(len(counts), z_q.shape[1]).index_add_(0, which, z_q)
    error = z_q - (sums / counts[:, None])[which]
    return bool((counts > 1).any()) and float(error.abs().max()) <= 2 * ROUNDING * float(z_q.abs().max())


def _levels(z_e: torch.Tensor, z_q: torch.Tensor) -> tuple[int, ...]:
    """Return how many values each channel of z_q takes; () where they are not a few of many."""
    if z_q.shape != z_e.shape or z_q.shape[1] > MOST_LEVELS:
        return ()
    levels: list[int] = []
    once = 0  # what a sparse activation lets through
    for channel, given in zip(z_q.T, z_e.T, strict=True):
        counts = channel.unique(return_counts=True)[1]
        if len(counts) > MOST_LEVELS or len(counts) * FEW > len(given.unique()):
            return ()
        levels.append(len(counts))
        once += int((counts == 1).sum())
    return tuple(levels) if max(levels) > 1 and once < sum(levels) / 2 else ()


def _size(module: nn.Module, highest: int, levels: tuple[int, ...]) -> int | None:
    """Return how many codes the module has: as it says, or else as its channels' levels make it."""
    for name in _SIZES:
        said = getattr(module, name, None)
        if isinstance(said, int) and highest < said:
            return said
    listed = _whole(module, _LEVELS) or levels
    return math.prod(listed) if listed else None


def _table_size(module: nn.Module, highest: int, dim: int) -> int | None:
    """Return how many codes a module has that it makes of one of its tensors; None without one so long.

    A table of the codes' own dimension is likelier than another.
    """
    tables = [t.shape for t in (*module.parameters(), *module.buffers()) if t.ndim == 2 and len(t) > highest]
    alike = [shape for shape in tables if shape[1] == dim]
    return min((shape[0] for shape in alike or tables), default=None)


def implicit(name: str, found: Quantizing, num_codes: int) -> QuantizerView:
    """Return the view of a layer without a codebook."""

    def load() -> Array:
        raise LookupError("this layer has no codebook: its codes are combinations of levels")

    return QuantizerView(
        name=name,
        layout=IMPLICIT,
        confidence=Confidence.HIGH if found.gives_codes or found.radix else Confidence.LOW,
        num_codes=num_codes,
        dim=found.outputs.shape[1],
        keys={},
        load_codebook=load,
    )
