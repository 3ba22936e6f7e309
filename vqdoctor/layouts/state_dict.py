"""The state dicts of a checkpoint file: containers split, prefixes stripped, optimizers left out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from vqdoctor.layouts.view import Tensor

#: Wrappers that name themselves so oddly that they are dropped wherever they stand.
_INNER = frozenset(
    {"_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module"}
)
#: Names that only a container gives: what stands beside them is another part of the file.
_CONTAINERS = frozenset(
    {
        "state_dict", "model_state_dict", "model_state", "best_state", "current_model_state",
        "best_model_state", "last_model_state",
    }
)  # fmt: skip
#: Names that a container gives, or a wrapper, or the model itself to a part.
_WRAPPERS = _INNER | _CONTAINERS | {"model", "ema_model", "online_model", "vq_model", "net", "generator"}
_COPIES = frozenset(
    {
        "ema", "ema_model", "model_ema", "state_dict_ema", "ema_state_dict", "model_ema_state_dict",
        "ema_params", "params_ema", "ema_weights", "generator_ema", "g_ema", "swa_model", "shadow",
    }
)  # fmt: skip
#: Names of a running average, by the name of the model that it follows.
_FOLLOWERS = {"teacher": "student", "target": "online", "target_encoder": "context_encoder"}
_OPTIMIZER = re.compile(r"^(?:\w*_)?(?:opt|optim|optimi[sz]er)s?\d*(?:_\w*)?$", re.IGNORECASE)
#: Parts in which a trainer keeps its own numbers; infinity is the usual start of a best score.
_TRAINERS = re.compile(
    r"^(?:callbacks?|loops?|trainer\w*|args|c(?:on)?fg|config|h(?:yper_?)?param(?:eter)?s|hps|results?|extra_state"
    r"|averaging_state|\w*rng\w*|\w*random_states?|\w*schedulers?|lr_sched\w*|\w*scaler\w*)$"
    r"|(?:^|_)(?:best|history|logs|loss(?:es)?|metrics?|scores?|stats|acc|accuracy|epochs?|steps?)(?:_|$)",
    re.IGNORECASE,
)
#: Numbers that a trainer puts among a model's parts where nothing else tells the two apart.
_BEST = re.compile(r"^best_|_(?:loss|score|acc|accuracy)$", re.IGNORECASE)
_OPTIMIZER_LEAF = re.compile(
    r"(?:^|\.)(?:exp_avg\w*|max_exp_avg_sq|momentum_buffer)$"
    r"|(?:^|\.)state\.\d+\.(?:step|sum|square_avg|acc_delta|variance|row_var|col_var|state[12]|qmap[12]|absmax[12])$"
)


@dataclass(frozen=True, kw_only=True, eq=False)
class StateDict:
    """One model's tensors.

    Attributes:
        prefix: the path in the file that all its keys share, with the dot ("state_dict.model."); "" for none.
        entries: tensors by clean name, in the file's order.
        raw: clean name to raw key.
        is_copy: whether the file says that it is a running average of another of its state dicts.
        is_trainers: whether they are a trainer's own and not a model's: best scores, losses, random states.
    """

    prefix: str
    entries: Mapping[str, Tensor]
    raw: Mapping[str, str]
    is_copy: bool = False
    is_trainers: bool = False

    @cached_property
    def _by_leaf(self) -> dict[str, list[str]]:
        index: dict[str, list[str]] = {}
        for name in self.entries:
            index.setdefault(name.rpartition(".")[2], []).append(name)
        return index

    @cached_property
    def widths(self) -> Counter[int]:
        """In how many different shapes of its matrices and larger tensors a size occurs."""
        shapes = {tensor.shape for tensor in self.entries.values() if len(tensor.shape) > 1}
        return Counter(size for shape in shapes for size in set(shape))

    def owners(self, suffix: str) -> Iterator[str]:
        """Yield, in the file's order, each module path that holds an entry `suffix`; "" is the root."""
        for name in self._by_leaf.get(suffix.rpartition(".")[2], ()):
            if name == suffix:
                yield ""
            elif name.endswith(f".{suffix}"):
                yield name[: -len(suffix) - 1]

    def get(self, path: str, suffix: str) -> Tensor | None:
        """Return the tensor `suffix` under that module path; None if there is none."""
        return self.entries.get(join(path, suffix))


def join(path: str, suffix: str) -> str:
    """Return `suffix` under that module path; the root's path is ""."""
    return f"{path}.{suffix}" if path else suffix


def strip_prefixes(key: str) -> str:
    """Return the key without what DDP, torch.compile, Lightning, EMA and containers put before it.

    Looks at one key alone; `state_dicts` also sees the neighbours, and never lets two keys become one.
    """
    return ".".join(_stripped(tuple(key.split("."))))


def is_optimizers(token: str) -> bool:
    """Return whether a part of a path is what a container calls an optimizer's state."""
    return _OPTIMIZER.match(token) is not None


def state_dicts(tensors: Mapping[str, Tensor]) -> tuple[StateDict, ...]:
    """Split the whole file's tensors into its state dicts, linear in the keys; a trainer's numbers come last.

    Running averages come after what they are averages of. Optimizer states are left out. Parts that are
    saved side by side (encoder, decoder, quantizer) stay one state dict, and so does a model in which only
    some of the keys have a wrapper.
    """
    keys = [tuple(raw.split(".")) for raw in tensors if not _OPTIMIZER_LEAF.search(raw)]
    found = [_state_dict(tensors, group) for group in _split(keys, 0)]
    return tuple(sorted(found, key=lambda sd: (sd.is_trainers, sd.is_copy)))


Path = tuple[str, ...]


@dataclass(frozen=True)
class _Group:
    """Keys that make one state dict: they share their first `depth` tokens."""

    keys: list[Path]
    depth: int
    is_copy: bool = False
    is_trainers: bool = False


def _split(keys: list[Path], depth: int) -> Iterator[_Group]:
    """Yield the group of each model, and of a trainer's numbers beside it."""
    by_head: dict[str, list[Path]] = {}
    rest: list[Path] = []
    has_optimizer = False
    for key in keys:
        head = key[depth]
        if len(key) == depth + 1:
            rest.append(key)
        elif is_optimizers(head):
            has_optimizer = True
        else:
            by_head.setdefault(head, []).append(key)
    of_another = {name for other in by_head for name in (f"{other}_ema", f"ema_{other}")}
    copies = {h for h in by_head if h in _COPIES or h in of_another or _follows(h, by_head, depth)}
    if len(by_head) == 1 and not rest and (head := next(iter(by_head))) in _WRAPPERS | _COPIES:
        yield from _split(by_head[head], depth + 1)
        return
    if not (has_optimizer or copies or not _CONTAINERS.isdisjoint(by_head)):
        yield from _models_first(keys, depth, lambda key: len(key) == depth + 1 and _BEST.search(key[depth]))
        return
    parts = {h for h in by_head if h in _WRAPPERS | copies}
    for head in (h for h in by_head if h in parts):
        for group in _split(by_head[head], depth + 1):
            yield replace(group, is_copy=group.is_copy or (head in copies and len(by_head) > 1))
    # Parts beside the named containers, in the file's order: they may be one model's encoder and quantizer.
    outside = [k for k in keys if len(k) == depth + 1 or (k[depth] in by_head and k[depth] not in parts)]
    yield from _models_first(outside, depth, lambda key: _TRAINERS.search(key[depth]))


def _follows(head: str, by_head: Mapping[str, list[Path]], depth: int) -> bool:
    """Whether a part is the running average of another: its name says so, and it has the very same keys."""
    followed = by_head.get(_FOLLOWERS.get(head, ""), ())
    tails = ({key[depth + 1 :] for key in keys} for keys in (followed, by_head[head]))
    return bool(followed) and next(tails) == next(tails)


def _models_first(keys: list[Path], depth: int, is_trainers: Callable[[Path], object]) -> Iterator[_Group]:
    """Yield the keys of a model, then those of its trainer."""
    trainers = {key for key in keys if is_trainers(key)}
    for of_trainer in (False, True):
        if own := [key for key in keys if (key in trainers) == of_trainer]:
            yield _Group(own, depth, is_trainers=of_trainer)


def _state_dict(tensors: Mapping[str, Tensor], group: _Group) -> StateDict:
    keys, depth = group.keys, group.depth
    names = _clean_names([key[depth:] for key in keys])
    raws = [".".join(key) for key in keys]
    return StateDict(
        prefix="".join(f"{token}." for token in keys[0][:depth]),
        entries={name: tensors[raw] for name, raw in zip(names, raws, strict=True)},
        raw=dict(zip(names, raws, strict=True)),
        is_copy=group.is_copy,
        is_trainers=group.is_trainers,
    )


def _clean_names(paths: list[Path]) -> list[str]:
    """Return the names as bare as they can be without two becoming one."""
    for clean in (_stripped, _unwrapped):
        names = [".".join(clean(path)) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [".".join(path) for path in paths]


def _stripped(path: Path) -> Path:
    path = _unwrapped(path)
    start = 0
    while start < len(path) - 1 and path[start] in _WRAPPERS:
        start += 1
    return path[start:]


def _unwrapped(path: Path) -> Path:
    return tuple(t for t in path[:-1] if t not in _INNER) + path[-1:]
