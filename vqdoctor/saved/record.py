"""Looks through a checkpoint's plain values for the settings of the training."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from vqdoctor.checkpoint import Inert, LazyTensor, children, settings
from vqdoctor.core.evidence import TrainingRecord
from vqdoctor.core.frozen import frozen
from vqdoctor.saved.beside import TRAINER_STATE
from vqdoctor.saved.optimizer import SavedOptimizer, is_optimizer

_MAX_DEPTH = 12
_MAX_CONTAINERS = 50_000
_MAX_LISTED = 1000
"""Containers of a list that are looked at: settings are in short lists, and logs in long ones."""
_PROGRESS_DEPTH = 4

_FOREIGN = ("optim", "sched", "callback", "loops", "scaler", "state_dict", "rng", "_metadata", "_parent")
"""Parts of a path under which a setting is somebody else's: `step` of Adam, `last_epoch` of a scheduler."""
_CONFIG = frozenset(
    {"config", "cfg", "conf", "args", "hparams", "hyper_parameters", "hyperparameters", "hps", "options",
     "opts", "settings", "params", "kwargs", "model_config", "train_config", "training", "train", "trainer"}
)  # fmt: skip
_VQ_WORDS = ("vq", "quant", "codebook", "codes", "n_embed", "num_embeddings", "commit", "bottleneck")


@frozen
class _Setting:
    """How a setting is called, most telling name first, and which values make sense.

    Attributes:
        names: names that say it outright.
        weak: names that other things have too; taken only beside or under something of a VQ layer.
        low: smallest sensible value.
        high: largest sensible value.
        progress: a count of what has been done: near the root, and never in a config, which plans.
    """

    names: tuple[str, ...]
    weak: tuple[str, ...] = ()
    low: float = 0.0
    high: float = math.inf
    progress: bool = False


_SETTINGS: Mapping[str, _Setting] = {
    "vq_weight": _Setting(
        names=(
            "vq_weight", "vq_loss_weight", "lambda_vq", "vq_lambda", "vq_loss_lambda", "vq_coef",
            "vq_loss_coef", "codebook_weight", "codebook_loss_weight", "lambda_codebook",
            "quantizer_weight", "quant_loss_weight", "quantization_weight", "latent_loss_weight",
        ),
    ),
    "commitment_weight": _Setting(
        names=(
            "commitment_weight", "commitment_cost", "commitment_beta", "commitment_loss_weight",
            "commit_weight", "commit_loss_weight", "commit_beta", "vq_beta",
        ),
        weak=("beta", "commitment", "commit"),
    ),
    "decay": _Setting(
        names=("vq_decay", "codebook_decay", "codebook_ema_decay", "vq_ema_decay", "quantizer_decay"),
        weak=("decay", "ema_decay", "gamma_ema"),
        high=1.0,
    ),
    "epochs": _Setting(
        names=("epoch", "epochs", "epochs_done", "current_epoch", "epoch_idx", "ep"), progress=True
    ),
    "updates": _Setting(
        names=(
            "global_step", "num_updates", "updates", "step", "steps", "global_steps", "iteration",
            "iterations", "iter", "iters", "total_it", "n_iter", "num_steps", "train_steps",
        ),
        progress=True,
    ),
    "batch_size": _Setting(
        names=("batch_size", "train_batch_size", "per_device_train_batch_size", "batchsize", "bs"), low=1.0
    ),
    "learning_rate": _Setting(names=("learning_rate", "lr", "base_lr", "base_learning_rate")),
    "revival_threshold": _Setting(
        names=("threshold_ema_dead_code", "revival_threshold", "restart_thres"),
    ),
}  # fmt: skip
_TASK = "vqdoctor_task"
_NAMES = frozenset(name for known in _SETTINGS.values() for name in known.names + known.weak) | {_TASK}
_CONTAINERS = (dict, list, tuple, Inert)
_WHOLE = ("epochs", "updates", "batch_size")
_INDICES = frozenset({"epoch", "current_epoch", "epoch_idx", "ep"})
RETRAINED = "retrained"
"""Where a retraining notes its own settings and steps, which are not in the file's config."""


@frozen
class _Value:
    """A plain value of the tree, by the name of a setting."""

    path: tuple[str, ...]
    value: bool | int | float | str
    beside_vq: bool

    @property
    def name(self) -> str:
        return _normal(self.path[-1])

    @property
    def parents(self) -> tuple[str, ...]:
        return tuple(_normal(part) for part in self.path[:-1])


def read_record(
    tree: Any, optimizers: tuple[SavedOptimizer, ...], beside: Sequence[tuple[str, Any]] = ()
) -> TrainingRecord:
    """Return the record of the training in the plain values of `tree`, beside it, and in its optimizers.

    Where a setting is found more than once, the one nearest to the root counts; the optimizer's
    own steps and learning rate are taken where no other is recorded.

    Args:
        tree: the checkpoint's tree.
        optimizers: its optimizers.
        beside: name and content of each file of settings beside it, which are asked in that order for what
            the checkpoint itself leaves open.
    """
    by_name = _by_name(tree)
    found = _settings(by_name)
    for file, content in beside:
        there = _settings(_by_name(content))
        if file != TRAINER_STATE:  # a config plans; it does not know what was done
            there = {name: told for name, told in there.items() if not _SETTINGS[name].progress}
        found = {**{name: (value, f"{file}: {where}") for name, (value, where) in there.items()}, **found}
    for optimizer in optimizers:
        if "updates" not in found and (steps := optimizer.steps):
            found["updates"] = (steps, f"{optimizer.path}.state.*.step")
        if "learning_rate" not in found and (rate := optimizer.learning_rate) is not None:
            found["learning_rate"] = (rate, f"{optimizer.path}.param_groups.0.lr")
    _count_as_the_trainer(found, optimizers)
    for value in by_name.get(_TASK, ()):
        if isinstance(value.value, str):
            found.setdefault("task", (value.value, ".".join(value.path)))
    plain: dict[str, Any] = {k: int(v) if k in _WHOLE else v for k, (v, _) in found.items()}
    return TrainingRecord(
        source="checkpoint",
        sample_size=len(found),
        found_at=tuple(f"{name}={where}" for name, (_, where) in found.items()),
        **plain,
    )


def _by_name(tree: Any) -> dict[str, list[_Value]]:
    found: dict[str, list[_Value]] = {}
    for value in _values(tree):
        found.setdefault(value.name, []).append(value)
    return found


def _settings(by_name: Mapping[str, Sequence[_Value]]) -> dict[str, tuple[float | str, str]]:
    """Return each setting that the values of a tree hold, and where."""
    found: dict[str, tuple[float | str, str]] = {}
    for name, setting in _SETTINGS.items():
        named = (value for known in setting.names + setting.weak for value in by_name.get(known, ()))
        candidates = [value for value in named if _fits(value, setting)]
        if candidates:
            names = setting.names + setting.weak
            best = min(candidates, key=lambda v: (len(v.path), names.index(v.name)))
            number = float(best.value)
            others = {float(v.value) for v in candidates} - {number}
            note = f" ({len(others)} other value{'s' * (len(others) > 1)} further in)" if others else ""
            found[name] = (number, ".".join(best.path) + note)
    return found


def _count_as_the_trainer(
    found: dict[str, tuple[float | str, str]], optimizers: Sequence[SavedOptimizer]
) -> None:
    """Correct an epoch that is an index, and updates that are those of several optimizers together.

    `epoch` is the index of the last epoch in many a loop and in Lightning, and its number in others: where
    the updates are whole epochs by the index alone, it is one. Lightning's `global_step` sums over the
    optimizers.
    """
    if "updates" not in found:
        return
    updates, where = float(found["updates"][0]), found["updates"][1]
    steps = [float(steps) for optimizer in optimizers if (steps := optimizer.steps)]
    if len(steps) > 1 and updates == sum(steps):
        updates = max(steps)
        found["updates"] = (updates, f"{where}, summed over {len(steps)} optimizers")
    last, where = found.get("epochs", (0.0, ""))
    index = where.rpartition(".")[2].partition(" ")[0].lower() in _INDICES
    if index and updates and not updates % (float(last) + 1) and (not last or updates % float(last)):
        found["epochs"] = (float(last) + 1, f"{where}, counted from 0")


def as_retrained(record: TrainingRecord, notes: Sequence[Mapping[str, Any]]) -> TrainingRecord:
    """Return the record of a file that `fix --retrain` wrote: its config still describes the old training.

    Args:
        record: the record by the file's own values.
        notes: the history of the file's fixes, oldest first.
    """
    told = notes[-1].get(RETRAINED) if notes else None
    if not isinstance(told, dict):
        return record
    found: dict[str, Any] = {}
    for name in ("vq_weight", "decay", "epochs", "updates"):
        value, setting = told.get(name), _SETTINGS[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            continue
        if setting.low <= value <= setting.high:
            found[name] = int(value) if name in _WHOLE else float(value)
    led = told.get("codes_by_ema")
    known = [where for where in record.found_at if where.partition("=")[0] not in found]
    found_at = (*known, *(f"{name}={RETRAINED} by vqdoctor" for name in found))
    return record.replace(
        **found,
        retrained=True,
        exempt_codebook=told.get("exempt_codebook") is True,
        codes_by_ema=tuple(name for name in led if isinstance(name, str)) if isinstance(led, list) else (),
        found_at=found_at,
        sample_size=len(found_at),
    )


def _fits(value: _Value, setting: _Setting) -> bool:
    is_foreign = any(word in part for part in value.parents for word in _FOREIGN)
    if isinstance(value.value, bool | str) or is_foreign:
        return False
    if not (math.isfinite(value.value) and setting.low <= value.value <= setting.high):
        return False
    if setting.progress and (len(value.path) > _PROGRESS_DEPTH or not _CONFIG.isdisjoint(value.parents)):
        return False
    about_vq = value.beside_vq or any(word in part for part in value.parents for word in _VQ_WORDS)
    return value.name in setting.names or (value.name in setting.weak and about_vq)


def _normal(name: str) -> str:
    return name.lower().replace("-", "_").strip("_")


def _values(tree: Any) -> Iterator[_Value]:
    """Yield the settings, nearest to the root first; a 0-dimensional tensor counts as a plain value."""
    todo: deque[tuple[tuple[str, ...], Any]] = deque([] if is_optimizer(tree) else [((), tree)])
    seen = 0
    while todo and seen < _MAX_CONTAINERS:
        path, node = todo.popleft()
        seen += 1
        is_list = isinstance(node, list | tuple)
        inside: list[tuple[str, Any]] = []  # OmegaConf's inner `_content` is passed through
        for key, child in islice(settings(node), _MAX_LISTED if is_list else None):
            inside += children(child) if key == "_content" else [(key, child)]
        named = "" if is_list else _normal("\n".join(key for key, _ in inside))
        beside_vq = any(word in named for word in _VQ_WORDS)
        for key, child in inside:
            last = key.rpartition(".")[2]  # "model.vq.decay" as a key is a path too
            is_setting = _normal(last) in _NAMES
            if is_setting or isinstance(child, Inert):
                child = _unwrapped(child)
            if isinstance(child, bool | int | float | str):
                if is_setting:
                    yield _Value(path=(*path, *key.split(".")), value=child, beside_vq=beside_vq)
            elif isinstance(child, _CONTAINERS) and child and not is_optimizer(child):
                below = (*path, *key.split("."))
                if len(below) < _MAX_DEPTH:
                    todo.append((below, child))


def _unwrapped(node: Any) -> Any:
    """A scalar out of a 0-dimensional tensor or out of OmegaConf's node; else the node itself."""
    if isinstance(node, LazyTensor) and node.shape == ():
        return node.read().item()
    if isinstance(node, Inert) and isinstance(node.state, dict) and "_val" in node.state:
        return node.state["_val"]
    return node
