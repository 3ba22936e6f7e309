"""The losses of a model's usual outputs, on a batch of its input and perhaps y.

The outputs are a tensor, or any nesting of tuples, dicts and objects of them. The task loss and the VQ loss
among them are chosen once, on the first training batch, by name or else by shape. The task's `notes` report
the choice, and the user can choose others.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator, Mapping

import torch
from torch.nn import functional

from vqdoctor.core.errors import UserError
from vqdoctor.core.frozen import frozen
from vqdoctor.models.task import Losses
from vqdoctor.models.user_code import blamed

Batch = dict[str, torch.Tensor]
Tensors = Mapping[str, torch.Tensor]
"""The tensors of an output by path: "logits", "vq_loss.vq", "1.0"; a lone tensor is "output"."""

_VQ_TOTAL = re.compile(
    r"(vq|quant|quanti[sz]er|quanti[sz]ation|codebook_commit\w*|latent)_?(loss(es)?|diff)"
    r"|loss(es)?_?(vq|quant|quanti[sz]er|quanti[sz]ation)|q_?loss|loss_?q|diff|aux_loss"
)
_VQ_PART = re.compile(
    r"(\w+_)?(codebook|commit|commitment|emb|embed|embedding|[eq]_latent)_?loss(es)?"
    r"|loss(es)?_?(codebook|commit|commitment|emb|embed|embedding|[eq]_latent)|commit(ment)?"
)
_TASK = re.compile(
    r"(task|rec|recon|recons|reconstruction|nll|ce|xent|classification|cls|mse|l1)_?loss"
    r"|loss_?(task|rec|recon|recons|reconstruction|nll|ce|cls|mse|l1)"
)
_LOGITS = re.compile(r"logits?|pred(iction)?s?|scores?|class(es)?")
_RECON = re.compile(
    r"(\w+_)?(recon|recons|reconstruction|reconstructed|rec)(_\w+)?|\w_?(hat|rec|tilde)|dec(oded)?"
    r"|outputs?|out|sample|audio(_values)?|pred(iction)?"
)
_LATENT = re.compile(r"z(_\w+)?|quant(i[sz]ed)?(_\w+)?|(\w+_)?(latents?|embed(dings?)?|codes?|features?)")
_STATISTIC = re.compile(r"perplexity|ppl|usage|entropy|acc(uracy)?")
LABELS = ("y", "labels", "label", "targets", "target")
"""The entries of a batch that may be the labels or the target, the first that it has."""
_MOST_TERMS = 64
"""Values that a loss may have, one for each level (and group) of a residual quantizer."""


@frozen
class Terms:
    """Which tensors of the output are the losses.

    Attributes:
        how: "ce", "mse" (of `output`), or "own": the model gives the loss itself, as `output`.
        output: path of the tensor.
        target: "x" or "y", the target of an "mse".
        vq: paths of the tensors whose sum is the VQ loss.
        by_sample: paths of the losses with one value per sample, which are averaged. Another loss of several
            values has one value per level, and is summed.
    """

    how: str
    output: str
    target: str = "x"
    vq: tuple[str, ...] = ()
    by_sample: tuple[str, ...] = ()

    def reduce(self, outputs: Tensors, path: str) -> torch.Tensor:
        """Return that loss as a scalar."""
        return outputs[path].mean() if path in self.by_sample else outputs[path].sum()


class UsualLosses:
    """The `losses` of a Task, found among the model's outputs; a Task may have it as its base.

    Attributes:
        input_name: the entry of a batch that is the model's input. Under another name than x it goes to the
            model by that name.
        vq_loss: the output to take for the VQ loss; all below it are summed. None is a guess.
        task_loss: "ce", "mse", or the output to take for the task loss; None is a guess.
        terms: which outputs were taken for the losses; None until the first batch.
        notes: the same in words, one line for the task loss and one for the VQ loss.
    """

    input_name = "x"
    vq_loss: str | None = None
    task_loss: str | None = None
    terms: Terms | None = None
    notes: tuple[str, ...] = ()

    @property
    def vq_loss_unknown(self) -> bool:
        """Whether no output was recognised as the VQ loss; the training may have one all the same."""
        return self.terms is not None and not self.terms.vq

    def losses(self, model: torch.nn.Module, batch: Batch) -> Losses:
        """Run the model on a batch, with the further entries that its forward() names; return its losses."""
        x, y = batch[self.input_name], next((batch[name] for name in LABELS if name in batch), None)
        outputs = flatten(self._run(model, batch))
        if self.terms is None:
            self.terms = self._choose(outputs, x, y)
        terms = self.terms
        if terms.output not in outputs:
            raise UserError(f"the model's output has no {terms.output} on this batch", _shown(outputs))
        # Many a model gives its VQ loss in training only.
        vq = [terms.reduce(outputs, path) for path in terms.vq if path in outputs]
        found = outputs[terms.output]
        logits = labels = None
        if terms.how == "ce":
            assert y is not None
            if found.shape[:1] + found.shape[2:] != y.shape:
                found = found.movedim(-1, 1)
            task = functional.cross_entropy(found.float(), y.long())
            logits, labels = (found, y) if found.ndim == 2 else (None, None)
        elif terms.how == "mse":
            target = y if terms.target == "y" and y is not None else x
            length = min(found.shape[-1], target.shape[-1])
            target = target[..., :length].to(found.dtype)
            task = functional.mse_loss(found[..., :length].reshape(target.shape), target)
        else:
            task = terms.reduce(outputs, terms.output)
        return Losses(task=task, vq=sum(vq[1:], vq[0]) if vq else None, logits=logits, labels=labels)

    def _run(self, model: torch.nn.Module, batch: Batch) -> object:
        floating = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
        name, x = self.input_name, batch[self.input_name]
        x = x.to(floating) if x.is_floating_point() else x
        named = inspect.signature(model.forward).parameters
        more = {key: value for key, value in batch.items() if key in named and key not in ("x", "y", name)}
        hint = f"--data must hold {name} as the model takes it"
        with blamed(f"the model fails on {name} {_describe(x)}", hint):
            return model(x, **more) if name == "x" else model(**{name: x}, **more)

    def _choose(self, outputs: Tensors, x: torch.Tensor, y: torch.Tensor | None) -> Terms:
        task = self._choose_task(outputs, x, y)
        vq = self._choose_vq(outputs, task, x)
        by_sample = tuple(path for path in (task.output, *vq) if outputs[path].shape == (len(x),))
        made_of = {
            "ce": f"cross-entropy of {_name(task.output)} against y",
            "mse": f"mean squared error of {_name(task.output)} against "
            f"{'y' if task.target == 'y' else self.input_name}",
            "own": f"the model's own {task.output}",
        }
        parts = []
        for path in vq:
            how, values = "mean" if path in by_sample else "sum", outputs[path].numel()
            parts.append(_name(path) + (f" ({how} of its {values} values)" if values > 1 else ""))
        vq_made_of = " + ".join(parts) or f"none found; {_shown(outputs)}"
        self.notes = (
            f"task loss: {made_of[task.how]} (--task-loss chooses another)",
            f"VQ loss: {vq_made_of} (--vq-loss chooses another)",
        )
        return dataclasses.replace(task, vq=vq, by_sample=by_sample)

    def _choose_task(self, outputs: Tensors, x: torch.Tensor, y: torch.Tensor | None) -> Terms:
        asked = self.task_loss
        logits = _logits(outputs, x, y)
        recon = _reconstruction(outputs, x)
        if asked not in (None, "ce", "mse"):
            (path, *others) = _below(outputs, str(asked), "--task-loss")
            if others:
                hint = f"name one: {path}, {others[0]}, …"
                raise UserError(f"--task-loss {asked}: is several outputs", hint)
            return Terms(how="own", output=path)
        if asked == "ce" and logits is None:
            why = "integer labels y" if y is None or y.is_floating_point() else "an output with their classes"
            raise UserError(f"--task-loss ce: cross-entropy needs {why}", _shown(outputs))
        if logits is not None and asked != "mse":
            return Terms(how="ce", output=logits)
        given = _first(outputs, _TASK, lambda t: t.numel() == 1)
        if given is not None and asked is None:
            return Terms(how="own", output=given)
        if y is not None and y.is_floating_point() and (like_y := _reconstruction(outputs, y)) is not None:
            return Terms(how="mse", output=like_y, target="y")
        if recon is not None:
            return Terms(how="mse", output=recon)
        if asked is None and "loss" in outputs:
            return Terms(how="own", output="loss")
        raise UserError(
            f"no task loss can be made of the model's output on {self.input_name} {_describe(x)}; "
            f"{_shown(outputs)}",
            "name one with --task-loss ce|mse|KEY, or write a Task and give it with --task",
        )

    def _choose_vq(self, outputs: Tensors, task: Terms, x: torch.Tensor) -> tuple[str, ...]:
        if self.vq_loss is not None:
            return tuple(_below(outputs, self.vq_loss, "--vq-loss"))
        others = (path for path in outputs if path != task.output and not _is(_STATISTIC, path))
        losses = {}
        for path in others:
            t, by_sample = outputs[path], outputs[path].shape[:1] == (len(x),)
            few = t.ndim <= 2 and t.numel() <= _MOST_TERMS and not by_sample
            if t.is_floating_point() and (t.numel() == 1 or t.shape == (len(x),) or few):
                losses[path] = t
        for pattern in (_VQ_TOTAL, _VQ_PART):
            named = tuple(path for path in losses if _is(pattern, path))
            if named:
                return named
        # Without names: the first value that was made for learning; a perplexity has no gradient.
        unnamed = (p for p, t in losses.items() if t.requires_grad and p.rpartition(".")[2].isdigit())
        return tuple(p for p in (next(unnamed, None),) if p is not None)


def flatten(output: object) -> dict[str, torch.Tensor]:
    """Return the tensors in a model's output by path, in its order."""
    if isinstance(output, torch.Tensor):
        return {"output": output}
    return dict(_leaves(output, "", 4))


def _leaves(value: object, path: str, depth: int) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield path, value
    elif depth:
        for name, item in _items(value):
            yield from _leaves(item, f"{path}.{name}" if path else name, depth - 1)


def _items(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        yield from ((str(key), item) for key, item in value.items())
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        yield from zip(value._fields, value, strict=True)
    elif isinstance(value, tuple | list):
        yield from ((str(i), item) for i, item in enumerate(value))
    elif hasattr(value, "__dict__") and not isinstance(value, type | torch.nn.Module):
        yield from vars(value).items()


def _is(pattern: re.Pattern[str], path: str) -> bool:
    """Whether a name in the path, or all of it, has the pattern: "vq/commit_loss" is a commit_loss too."""
    names = (*re.split(r"[./]", path), *path.split("."), path)
    return any(pattern.fullmatch(re.sub(r"\W+", "_", name).lower()) for name in names)


def _first(outputs: Tensors, pattern: re.Pattern[str], fits: Callable[[torch.Tensor], bool]) -> str | None:
    """Return the first path with that name whose tensor fits."""
    return next((path for path, t in outputs.items() if fits(t) and _is(pattern, path)), None)


def _logits(outputs: Tensors, x: torch.Tensor, y: torch.Tensor | None) -> str | None:
    if y is None or y.is_floating_point() or y.dtype == torch.bool:
        return None
    classes = int(y.max()) + 1

    def fits(t: torch.Tensor) -> bool:
        channels = _channels(t, y)
        return channels is not None and channels >= max(2, classes)

    named = _first(outputs, _LOGITS, fits)
    other = (p for p, t in outputs.items() if fits(t) and not _is(_LATENT, p) and t.shape != x.shape)
    return named if named is not None else next(other, None)


def _channels(t: torch.Tensor, y: torch.Tensor) -> int | None:
    """Return how many classes `t` scores for every label of y; None where it does not."""
    if not t.is_floating_point() or t.ndim != y.ndim + 1:
        return None
    if t.shape[:1] + t.shape[2:] == y.shape:
        return t.shape[1]
    return t.shape[-1] if t.shape[:-1] == y.shape else None


def _reconstruction(outputs: Tensors, target: torch.Tensor) -> str | None:
    """Return the output that is compared with the target: by its name, else by its shape."""
    if not target.is_floating_point():
        return None

    def near(t: torch.Tensor) -> bool:
        """Whether the shapes agree, except in axes of length one and a few samples at the end."""
        if not t.is_floating_point() or t is target or not t.ndim:
            return False
        a, b = ([n for n in tensor.shape[:-1] if n != 1] for tensor in (t, target))
        return a == b and 0.9 < t.shape[-1] / max(1, target.shape[-1]) < 1.1

    if (named := _first(outputs, _RECON, near)) is not None:
        return named
    alike = (p for p, t in outputs.items() if t.is_floating_point() and t.shape == target.shape)
    return next((p for p in alike if outputs[p] is not target and not _is(_LATENT, p)), None)


def _name(path: str) -> str:
    """Return an output's name within a sentence: a number needs a word before it."""
    return f"output {path}" if path[0].isdigit() else path


def _below(outputs: Tensors, key: str, option: str) -> list[str]:
    found = [p for p in outputs if p == key or p.startswith(f"{key}.")]
    if not found:
        raise UserError(f"{option} {key}: the model's output has no such term", _shown(outputs))
    return found


def _shown(outputs: Tensors) -> str:
    told = ", ".join(f"{path} {list(t.shape)}" for path, t in list(outputs.items())[:12])
    return f"the output has {told or 'no tensor'}"


def _describe(x: torch.Tensor) -> str:
    return f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)}"
