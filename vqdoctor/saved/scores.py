"""The success of the model as a file, and a `trainer_state.json` beside it, record it.

Numbers are taken by their names, and classes are counted by the config or by the shape of a head. A number is
never taken for a cross-entropy because it looks like one.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from vqdoctor.checkpoint import Inert, LazyTensor, settings
from vqdoctor.core.frozen import frozen
from vqdoctor.layouts.state_dict import StateDict
from vqdoctor.saved.beside import TRAINER_STATE, read_json
from vqdoctor.saved.optimizer import is_optimizer

_LARGEST_NUMBER = 1e300
"""Larger integers have no float, and JSON may hold any."""
_MAX_DEPTH = 8
_MAX_NODES = 150_000
_HISTORY = 8
"""Least values of a history whose course is reported."""
_SPLIT = "(?:best|last|final|max|min|val|valid|validation|test|eval|dev|model|epoch|score|_)*"
_LATEST = 10_000
"""Values of a history among which the best is looked for."""
_ACCURACY = re.compile(rf"^{_SPLIT}(?:acc|accuracy|top_?1|acc_?1)(?:_?(?:val|valid|test|eval|epoch))?$")
_CROSS_ENTROPY = re.compile(
    rf"^{_SPLIT}(?:ce|ce_loss|cross_?entropy(?:_loss)?|cls_loss|class(?:ification)?_loss)$"
)
_VQ_LOSS = re.compile(
    rf"^{_SPLIT}(?:train_)?(?:vq|vq_loss|quant_loss|quantization_loss|commit(?:ment)?_loss|codebook_loss)$"
)
_CLASSES = re.compile(r"^(?:num|n)_(?:classes|class|labels|activities)$")
_CLASS_NAMES = frozenset({"classes", "class_names", "labels", "label_names", "id2label", "activities"})
_TELLING = (_CLASSES, _ACCURACY, _CROSS_ENTROPY, _VQ_LOSS)
_HEAD = re.compile(r"(?:^|_)head$|classif|logits|^cls|(?:^|_)class(?:es)?(?:_|$)|label|activity")
_LOG = re.compile(r"history|log", re.IGNORECASE)
_FOREIGN = ("optim", "sched", "scaler", "rng", "_metadata")


@frozen
class Score:
    """A recorded number and where it stands."""

    value: float
    where: str


@frozen
class Scores:
    """The recorded success of the model; None stands for an unrecorded number.

    Attributes:
        found: numbers that were found.
        accuracy: the best accuracy, as a share of one.
        cross_entropy: the least cross-entropy, by its name.
        classes: classes of the task.
        vq_losses: the recorded course of the VQ loss, and where it stands.
    """

    found: int = 0
    accuracy: Score | None = None
    cross_entropy: Score | None = None
    classes: Score | None = None
    vq_losses: tuple[tuple[float, ...], str] | None = None


def read_scores(tree: Any, models: Iterable[StateDict], beside: Path | None = None) -> Scores:
    """Return the model's success as the plain values of a checkpoint's tree record it.

    Args:
        tree: the checkpoint's tree.
        models: its models, whose heads tell the number of classes where no setting does.
        beside: the file, beside which a trainer may have left its state; None stands for no file.
    """
    numbers: list[tuple[str, Score]] = []
    courses: list[tuple[str, tuple[float, ...], str]] = []
    classes: list[Score] = []
    state = {} if beside is None else read_json(beside.parent / TRAINER_STATE)
    for where, name, node in [*_named(tree), *_named(state, f"{TRAINER_STATE}: ")]:
        if _CLASSES.match(name) and isinstance(node, int) and not isinstance(node, bool):
            classes.append(Score(value=float(node), where=where))
        elif name in _CLASS_NAMES and isinstance(node, list | tuple | dict):
            classes.append(Score(value=float(len(set(map(str, node)))), where=where))  # labels may repeat
        elif isinstance(node, list | tuple):
            values = tuple(number for item in node if (number := _number(item)) is not None)
            if values and len(values) == len(node):
                courses.append((name, values, where))
        elif (number := _number(node)) is not None:
            numbers.append((name, Score(value=number, where=where)))
    by_name: dict[str, list[Score]] = {}
    for name, score in numbers:
        by_name.setdefault(name, []).append(score)
    courses += [
        (name, tuple(score.value for score in scores), scores[0].where)
        for name, scores in by_name.items()
        if len(scores) >= _HISTORY and _LOG.search(scores[0].where)  # not the losses of residual levels
    ]
    numbers += [
        (name, Score(value=value, where=where))
        for name, values, where in courses
        for value in values[-_LATEST:]
    ]
    accuracies = [share for name, score in numbers if _ACCURACY.match(name) and (share := _share(score))]
    entropies = [score for name, score in numbers if _CROSS_ENTROPY.match(name) and score.value > 0]
    losses = [(v, w) for name, v, w in courses if _VQ_LOSS.match(name) and len(v) >= _HISTORY]
    return Scores(
        found=len(accuracies) + len(entropies) + len(losses),
        accuracy=max(accuracies, key=lambda score: score.value, default=None),
        cross_entropy=min(entropies, key=lambda score: score.value, default=None),
        classes=next((c for c in classes if c.value >= 2), None) or _head_classes(models),
        vq_losses=next(iter(losses), None),
    )


def _share(score: Score) -> Score | None:
    """Return an accuracy as a share of one: a number above one is a percentage, and 0 was never measured."""
    value = score.value / 100 if 1 < score.value <= 100 else score.value
    return Score(value=value, where=score.where) if 0 < value <= 1 else None


def _head_classes(models: Iterable[StateDict]) -> Score | None:
    """Return the outputs of the model's heads, by their names; None where they differ or there is none."""
    for model in models:
        heads: dict[str, Score] = {}
        for name, tensor in model.entries.items():
            tokens = name.split(".")
            if tokens[-1] != "weight" or len(tensor.shape) < 2 or any(n > 1 for n in tensor.shape[2:]):
                continue
            at = next((i for i, token in enumerate(tokens[:-1]) if _HEAD.search(token.lower())), None)
            if at is not None and tensor.shape[0] >= 2:
                # a later layer of the same head stands later in the file, and the last one has the outputs
                heads[".".join(tokens[: at + 1])] = Score(
                    value=float(tensor.shape[0]), where=f"the shape of {name}"
                )
        if len({score.value for score in heads.values()}) == 1:
            return next(iter(heads.values()))
    return None


def _named(tree: Any, before: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield (path, plain name, value) of every node with the name of a score, nearest to the root first."""
    todo: deque[tuple[tuple[str, ...], Any]] = deque([] if is_optimizer(tree) else [((), tree)])
    seen = 0
    while todo and seen < _MAX_NODES:
        path, node = todo.popleft()
        is_list = isinstance(node, list | tuple)
        for key, child in settings(node):
            seen += 1
            name, below = "" if is_list else _plain(key), (*path, key)
            if _is_foreign(name):
                continue
            if _is_telling(told := _monitored(name, node)):
                yield before + ".".join(below), told, child
            is_course = isinstance(child, list | tuple) and child and _number(child[0]) is not None
            is_node = isinstance(child, dict | list | tuple | Inert) and child and len(below) < _MAX_DEPTH
            if is_node and not (is_course or is_optimizer(child)):
                todo.append((below, child))


def _monitored(name: str, node: Any) -> str:
    """Return the name of a number; a callback's best score has that of the figure that it watches."""
    if name in ("best_model_score", "current_score", "best_score") and isinstance(node, Mapping):
        monitor = node.get("monitor")
        return _plain(monitor) if isinstance(monitor, str) else name
    return name


@lru_cache(4096)
def _is_foreign(name: str) -> bool:
    return any(word in name for word in _FOREIGN)


@lru_cache(4096)
def _is_telling(name: str) -> bool:
    return name in _CLASS_NAMES or any(form.match(name) for form in _TELLING)


@lru_cache(4096)
def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _number(node: Any) -> float | None:
    if isinstance(node, LazyTensor) and node.shape in ((), (1,)) and node.dtype.startswith("float"):
        node = node.read().reshape(()).item()
    if isinstance(node, bool) or not isinstance(node, int | float):
        return None
    return float(node) if abs(node) <= _LARGEST_NUMBER else None


def rise(values: Sequence[float]) -> float | None:
    """Return how many times larger a course ends than it starts; None where it is too short or starts at 0.

    The medians of its first and of its last quarter are compared.

    >>> rise([1.0, 1.0, 2.0, 3.0, 5.0, 6.0, 10.0, 10.0])
    10.0
    """
    quarter = len(values) // 4
    if not quarter:
        return None
    first, last = (sorted(part)[quarter // 2] for part in (values[:quarter], values[-quarter:]))
    return last / first if first > 0 else None
