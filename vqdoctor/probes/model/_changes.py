"""The changes of the experiments: each takes one cause away from a copy before it is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

import torch

from vqdoctor.capture.call import Call
from vqdoctor.capture.decay import own_decay, set_decay
from vqdoctor.capture.layer import CapturedLayer, bypass, bypassable, passes
from vqdoctor.capture.placing import place_codes
from vqdoctor.models.device import moved
from vqdoctor.models.task import Batch
from vqdoctor.models.tensors import tensors_of
from vqdoctor.models.untouched import in_eval_mode
from vqdoctor.probes.model._copy import TrainedCopy
from vqdoctor.probes.model.first_input import first_input
from vqdoctor.probes.probe import Missing
from vqdoctor.vq.estimators import straight_through

PLACING = "codes-from-data"
TENTH = 0.1
NO_CODEBOOK = "no layer stores a codebook"
MOST_BYTES = 2**28
"""Size of the batches whose samples are shuffled, which are held twice."""
APART = 3.0
"""Least factor between the scales of z_e and codes, or of an input and one, at which it is taken away."""
DECAY = 0.9
"""The faster EMA: its window of 10 updates fits three times into the steps of an experiment."""


def _weighing(factor: float) -> Callable[[TrainedCopy], str]:
    def change(copy: TrainedCopy) -> str:
        before = copy.vq_weight
        if before == 0:
            raise Missing("the VQ loss has weight 0, and no factor changes that")
        copy.vq_weight *= factor
        assumed = "" if copy.context.vq_weight is not None else ", which was assumed,"
        return f"the VQ loss at weight {copy.vq_weight:.3g} in place of {before:.3g}{assumed}"

    return change


def _paced(factor: float, told: str) -> Callable[[TrainedCopy], str]:
    def change(copy: TrainedCopy) -> str:
        for group in copy.optimizer.param_groups:
            group["lr"] = group["lr"] * factor
        rate = copy.optimizer.param_groups[0]["lr"]
        return f"{told} the learning rate ({float(rate):.2g})"

    return change


def _passed_straight(copy: TrainedCopy) -> str:
    def graft(_: CapturedLayer, call: Call) -> torch.Tensor:
        assert call.z_q is not None
        return straight_through(call.z_e, call.z_q) if call.z_e.shape == call.z_q.shape else call.z_q

    copy.behind = graft
    return "a straight-through estimator behind the VQ layer"


def placed(copy: TrainedCopy) -> str:
    """Place the codes of a copy by k-means.

    Raises:
        Missing: if no layer's codes can be placed.
    """
    context, generator = copy.context, torch.Generator().manual_seed(copy.context.seed)
    layers = tuple(layer for layer in copy.layers if layer.stored() is not None)
    if not layers:
        raise Missing(NO_CODEBOOK)

    def served() -> Iterator[Batch]:
        return (moved(batch, context.device) for batch in copy.batches)

    left = place_codes(copy.model, context.task, served, layers, copy.optimizer, generator, context.progress)
    if len(left) == len(layers):
        raise Missing(next(iter(left.values())))
    return "the codes placed by k-means on z_e"


def _forgetting(copy: TrainedCopy) -> str:
    slow = [layer for layer in copy.layers if (own_decay(layer) or 0.0) > DECAY]
    if not slow:
        raise Missing(f"no layer keeps an EMA decay above {DECAY:g}")
    for layer in slow:
        set_decay(layer, DECAY)
    return f"EMA decay {DECAY:g}"


def _frozen(copy: TrainedCopy) -> str:
    stored = [layer.stored(role) for layer in copy.layers for role in ("codebook", "counts", "sums")]
    copy.frozen = tuple((tensor, tensor.detach().clone()) for tensor in stored if tensor is not None)
    if not copy.frozen:
        raise Missing(NO_CODEBOOK)
    return "the codebook held still"


def _shuffled(copy: TrainedCopy) -> str:
    if copy.context.arrays:
        raise Missing("the batches are the rows of a data file, whose order need not be the training's")
    whole = list(_few_enough(copy.context.task.batches("train")))
    sizes = [{len(t) if t.ndim else 0 for t in tensors_of(batch)} for batch in whole]
    try:
        joined = _mapped(whole, lambda parts: torch.cat(list(parts)))
    except (RuntimeError, TypeError, ValueError, IndexError):
        sizes = []
    if not sizes or any(len(size) != 1 or 0 in size for size in sizes):
        raise Missing("the samples of different batches cannot be exchanged")
    rows = [min(size) for size in sizes]
    order = torch.randperm(sum(rows), generator=torch.Generator().manual_seed(copy.context.seed))
    parts = torch.split(order, rows)[: len(copy.batches)]
    copy.batches = [_mapped([joined], partial(_taken, part)) for part in parts]
    return "the samples of all batches shuffled"


def _few_enough(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yield the batches until they hold `MOST_BYTES`."""
    held = 0
    for batch in batches:
        yield batch
        held += sum(t.numel() * t.element_size() for t in tensors_of(batch))
        if held > MOST_BYTES:
            return


def _taken(rows: torch.Tensor, whole: Sequence[torch.Tensor]) -> torch.Tensor:
    return whole[0][rows.to(whole[0].device)]


def _mapped(batches: Sequence[Batch], of: Callable[[Sequence[torch.Tensor]], torch.Tensor]) -> Batch:
    """Return a batch of the same form whose tensors are made of the tensors at their place in `batches`."""
    first = batches[0]
    if isinstance(first, torch.Tensor):
        return of(batches)
    if isinstance(first, tuple | list):
        items = [_mapped(items, of) for items in zip(*batches, strict=True)]
        return type(first)(*items) if hasattr(first, "_fields") else type(first)(items)
    if type(first) is dict:
        return {key: _mapped([batch[key] for batch in batches], of) for key in first}
    return first


def _scaled_input(copy: TrainedCopy) -> str:
    found = first_input(copy.context, copy.model, copy.batches[:1])
    if found.rms is None or 1 / APART < found.rms < APART:
        raise Missing("the input has an ordinary scale")
    divide = found.rms
    copy.model.get_submodule(found.module).register_forward_pre_hook(
        lambda _, args: (args[0] / divide, *args[1:])
    )
    return f"the input of {found.module} divided by {divide:.3g}"


def _scaled_z_e(copy: TrainedCopy) -> str:
    """Divide z_e before the VQ layer: the decoder has learnt to read codes, and gets them as before."""
    ratios: list[float] = []
    for layer in copy.layers:
        vectors, codes = _asked(copy, layer), layer.codes() if layer.stored() is not None else None
        if vectors is None or codes is None:
            raise Missing("its vectors cannot be seen in the codebook's dimension")
        z_e, size = _spread(vectors), _spread(codes, blown_up=True)
        if not z_e or not size or 1 / APART < z_e / size < APART:
            continue
        ratios.append(z_e / size)
        by = ratios[-1]
        layer.module.register_forward_pre_hook(lambda _, args, by=by: (args[0] / by, *args[1:]))
        after = _asked(copy, layer)
        if after is None or not 0.5 < _spread(after) / size < 2:
            raise Missing("the vectors do not enter the layer as its first argument")
    if not ratios:
        raise Missing("z_e and codes have the same scale")
    return f"z_e divided by {', '.join(f'{ratio:.3g}' for ratio in ratios)} before the VQ layer"


def _asked(copy: TrainedCopy, layer: CapturedLayer) -> torch.Tensor | None:
    """Return the vectors that a layer is asked for on the first batch, in eval mode."""
    batch = moved(copy.batches[0], copy.context.device)
    with in_eval_mode(copy.model), torch.no_grad():
        _, _, watched = next(passes(copy.model, copy.context.task, (batch,), (layer,)))
    return layer.vectors(watched)


def _spread(rows: torch.Tensor, *, blown_up: bool = False) -> float:
    """Return the root mean square distance of rows [N, D] to their middle; the median if some may blow up."""
    apart = (rows.float() - rows.float().median(dim=0).values).norm(dim=1)
    return float(apart.median() if blown_up else apart.square().mean().sqrt())


def _without_vq(copy: TrainedCopy) -> str:
    context = copy.context
    other, first = context.copy(training=False), moved(copy.batches[0], context.device)
    if not bypassable(other, context.task, first, context.on(other)):
        raise Missing("z_q has another shape than z_e")
    copy.behind = bypass
    return "z_e in place of z_q"


CHANGES: Mapping[str, Callable[[TrainedCopy], str]] = {
    PLACING: placed,
    "lighter-vq-loss": _weighing(TENTH),
    "heavier-vq-loss": _weighing(1 / TENTH),
    "straight-through": _passed_straight,
    "lower-rate": _paced(TENTH, "a tenth of"),
    "higher-rate": _paced(1 / TENTH, "ten times"),
    "faster-ema": _forgetting,
    "frozen-codebook": _frozen,
    "shuffled-samples": _shuffled,
    "scaled-input": _scaled_input,
    "scaled-z-e": _scaled_z_e,
    "without-vq": _without_vq,
}
"""Name of an experiment in `core.experiments` to its change of a copy.

It returns the change in words that follow "with", and raises `Missing` where it is not possible.
"""
