"""Leaving no mark: working on a copy, and proving that the original is bit-equal afterwards."""

from __future__ import annotations

import contextlib
import copy
import random
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
import torch
from torch import nn

from vqdoctor.core.errors import UserError
from vqdoctor.models.sharded import is_sharded

_HOOKS = (
    "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks",
    "_state_dict_hooks", "_load_state_dict_pre_hooks",
)  # fmt: skip


class TouchedError(AssertionError):
    """An examination changed the user's model or random state: a bug of vqdoctor."""


def inside(module: nn.Module) -> nn.Module | None:
    """Return the module that torch.compile, DDP or DataParallel wraps; None for any other module."""
    if isinstance(module, nn.parallel.DistributedDataParallel | nn.DataParallel):
        inner = module.module
        return inner if isinstance(inner, nn.Module) else None
    compiled = module._modules.get("_orig_mod")
    return compiled if type(module).__name__ == "OptimizedModule" else None


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model itself, without wrappers around the whole of it."""
    while (inner := inside(model)) is not None:
        model = inner
    return model


def unwrapped_name(model: nn.Module, name: str) -> str:
    """Return the name of a tensor or module of `model` in a working copy, which has no wrappers."""
    kept = []
    here: nn.Module | None = model
    for token in name.split("."):
        if here is None or inside(here) is None or token not in here._modules:
            kept.append(token)
        here = None if here is None else here._modules.get(token)
    return ".".join(kept)


def working_copy(
    model: nn.Module, *, training: bool, rebuild: Callable[[], nn.Module] | None = None
) -> nn.Module:
    """Return a deep copy in train or eval mode, without the original's gradients and without wrappers.

    Args:
        model: the original; it is only read.
        training: the mode of the copy.
        rebuild: builds the model anew, for one that cannot be copied (it holds a lock, a stream, …);
            the copy then gets the original's state dict.

    Raises:
        UserError: if the model can neither be copied nor rebuilt.
    """
    try:
        twin = _deep_copy(model)
    except Exception as error:  # whatever an object in a foreign model raises when it is copied
        twin = _rebuilt(model, rebuild, error)
    twin.zero_grad(set_to_none=True)
    for module in twin.modules():
        module._compiled_call_impl = None  # of `module.compile()`, whose code would skip the hooks
    return twin.train(training)


def _deep_copy(model: nn.Module) -> nn.Module:
    lazy = {id(p): _lazy_copy(p) for p in model.parameters()}
    memo: dict[int, object] = {own: copied for own, copied in lazy.items() if copied is not None}
    for module in model.modules():
        # A module has a dozen empty tables of hooks: they took two fifths of the time of a copy.
        memo.update((id(value), type(value)()) for value in vars(module).values() if _is_empty(value))
        # Old weight_norm keeps its computed weight as an attribute, which deepcopy refuses: not a leaf.
        for value in (*vars(module).values(), *module._buffers.values()):
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    for module in reversed(list(model.modules())):  # from the inside out
        if (inner := inside(module)) is not None:
            twin = copy.deepcopy(inner, memo)
            if isinstance(module, nn.parallel.DistributedDataParallel | nn.DataParallel):
                vars(twin)["module"] = twin  # for a loss function that reaches into `model.module`
            memo[id(module)] = twin
    return copy.deepcopy(model, memo)


def _is_empty(value: object) -> bool:
    return type(value) in (dict, OrderedDict, set) and not value


def _lazy_copy(parameter: nn.Parameter) -> nn.Parameter | None:
    """Return a copy that takes memory when one of the two is written: passes write few parameters.

    None where it must be copied at once. A parameter in memory that other processes share would leave that
    memory with the first write to the original. Memory that is not torch's own (numpy's, a mapped file's)
    torch copies at once only.
    """
    can_wait = (
        hasattr(torch, "_lazy_clone")  # not a promise of torch: without it copies take their memory at once
        and type(parameter) is nn.Parameter
        and parameter.layout is torch.strided
        and parameter.device.type == "cpu"
        and parameter.is_contiguous()
        and not parameter.is_shared()  # type: ignore[no-untyped-call]
        and not parameter.is_pinned()
    )
    with contextlib.suppress(RuntimeError):
        return (
            nn.Parameter(torch._lazy_clone(parameter.detach()), parameter.requires_grad) if can_wait else None
        )
    return None


def _address(tensor: torch.Tensor) -> int:
    """Return where a tensor's values lie, of a copy that waits to be written too; 0 where it is unknown."""
    address = getattr(torch._C, "_data_address", None)
    return 0 if address is None or tensor.device.type != "cpu" else int(address(tensor))


def _rebuilt(model: nn.Module, rebuild: Callable[[], nn.Module] | None, error: Exception) -> nn.Module:
    if is_sharded(model):
        what = "the model is sharded (fully_shard), and a copy of a part cannot run"
        raise UserError(what, "examine its checkpoint: torchrun … -m vqdoctor inspect CKPT --task …")
    said = str(error).splitlines()[0] if str(error) else ""
    reason = f"the model cannot be copied ({type(error).__name__}: {said})"
    hint = "give a task whose model() builds it anew"
    if rebuild is None:
        raise UserError(reason, hint) from error
    twin = rebuild()
    if twin is model:
        raise UserError(f"{reason}, and the task's model() returns the same object again", hint) from error
    own = {unwrapped_name(model, name): tensor for name, tensor in model.state_dict().items()}
    twin = unwrapped(twin)
    try:
        twin.load_state_dict(own)
    except RuntimeError as mismatch:
        raise UserError(f"{reason}, and a newly built one has other tensors", hint) from mismatch
    return twin


@contextmanager
def untouched(model: nn.Module, seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed the random states inside, restore them outside, and prove the model bit-equal.

    The random states are those of torch (CPU and GPUs), numpy and Python.

    Args:
        model: the user's model.
        seed: seeds all of them.
        device: where the copies will run, if not where the model is.

    Raises:
        TouchedError: if a parameter, buffer, gradient, mode, hook or attribute of `model` changed inside.
    """
    before = _marks(model)
    used = {t.device for t in model.state_dict().values()} | ({device} if device else set())
    started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    with same_randomness(seed, cuda=started or any(place.type == "cuda" for place in used)):
        yield
    after = _marks(model)
    changed = [name for name, value in before.items() if not _same(value, after.get(name))]
    if changed or before.keys() != after.keys():
        raise TouchedError(f"the examination changed {', '.join(changed[:5]) or 'the set of tensors'}")


@contextmanager
def same_randomness(seed: int, *, cuda: bool = True) -> Iterator[None]:
    """Seed torch, numpy and Python inside, for the user's code, and restore their random states outside.

    Args:
        seed: seeds all of them.
        cuda: whether GPUs are drawn from; their random states are left alone where they are not.
    """
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    python, legacy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if cuda else ()):
        try:
            seed_all(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)
            if mps is not None:
                torch.mps.set_rng_state(mps)


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Run a model in eval mode; every module's own mode comes back."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def seed_all(seed: int) -> None:
    """Seed torch's, numpy's and Python's global random states: a layer may draw from any of them.

    `torch.manual_seed` formats the whole call stack where no GPU has been used, which took a third of an
    examination in a deep stack: it is called where there is something beside the CPU to seed.
    """
    (torch.manual_seed if _beside_cpu() else torch.default_generator.manual_seed)(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


@cache
def _beside_cpu() -> bool:
    """Whether torch has a device with random numbers of its own, a plug-in among them."""
    plugged_in = hasattr(torch, torch._C._get_privateuse1_backend_name())
    found = torch.cuda.is_available() or torch.backends.mps.is_available() or torch.xpu.is_available()
    return plugged_in or found


def _marks(model: nn.Module) -> dict[str, object]:
    marks: dict[str, object] = {}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        lazy = _lazy_copy(tensor) if isinstance(tensor, nn.Parameter) else None
        marks[name] = tensor.detach().clone() if lazy is None else lazy.detach()
        marks[f"{name} (gradient)"] = None if tensor.grad is None else tensor.grad.clone()
        marks[f"{name} (identity)"] = (id(tensor), tensor.requires_grad)
    for name, module in model.named_modules():
        hooks = tuple(tuple(getattr(module, kind)) for kind in _HOOKS)
        marks[f"{name} (mode and hooks)"] = (module.training, *hooks)
        for attribute, value in vars(module).items():
            if isinstance(value, torch.Tensor):
                marks[f"{name}.{attribute}"] = value.detach().clone()
            elif isinstance(value, bool | int | float | str | None):
                marks[f"{name}.{attribute}"] = repr(value)
    return marks


def _same(one: object, other: object) -> bool:
    if not (isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)):
        return not isinstance(one, torch.Tensor) and not isinstance(other, torch.Tensor) and one == other
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    if one.is_contiguous() and other.is_contiguous() and _address(one) == _address(other) != 0:
        return True  # neither was written since one became the other's copy
    bits = (tensor.contiguous().flatten().view(torch.uint8) for tensor in (one, other))
    return torch.equal(*bits)  # bytes, not values: NaN must equal itself
