"""The task file of a user's model: what `vqdoctor init` writes, and the steps after it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vqdoctor.core.errors import MissingPackageError, UserError
from vqdoctor.core.frozen import frozen
from vqdoctor.models.user_code import blamed, load_object

BATCH = "batch.npz"
_TEMPLATE = '''"""The task of {spec} for vqdoctor, as `vqdoctor init` wrote it.

It runs as it is, on a batch file beside it. Each FILL IN is something that only your training knows.

    vqdoctor inspect CKPT --task {file}:task
"""

from pathlib import Path

import numpy
import torch

import vqdoctor
{imports}

BATCH = Path(__file__).with_name("{batch}")
BATCH_SIZE = 16  # FILL IN: the samples of a batch in your training


class Task(vqdoctor.UsualLosses):
    vq_weight = None  # FILL IN: the weight of the VQ loss in your training; None is unknown
    input_name = "{input}"  # the array of {batch} that your model takes

    def model(self):
        """Return the model, freshly built; the checkpoint is loaded into it."""
        return {build}

    def batches(self, split):
        """Yield the batches of "train" or "val", in the same order every time.

        FILL IN: your own loaders in the place of {batch}, if you like. Without an array `split` in the file
        both splits are all of it, and val is the training data too.
        """
        arrays = dict(numpy.load(BATCH))
        rows = numpy.arange(len(arrays[self.input_name]))
        if "split" in arrays:
            rows = rows[arrays.pop("split") == split]
        elif split == "stop":
            return
        for start in range(0, len(rows), BATCH_SIZE):
            part = rows[start : start + BATCH_SIZE]
            yield {{name: torch.from_numpy(values[part]) for name, values in arrays.items()}}

    # `losses` comes from UsualLosses: it finds the task loss and the VQ loss among the outputs of
    # your model, and the notes of a report say which it took. Where they are not yours, FILL IN:
    #
    # def losses(self, model, batch):
    #     x = batch["{input}"]
    #     output, vq_loss = model({call})
    #     task = torch.nn.functional.mse_loss(output, x)
    #     return vqdoctor.Losses(task=task, vq=vq_loss)
    #
    # For `vqdoctor fix --retrain` FILL IN the optimizer of your training:
    #
    # def optimizer(self, model):
    #     return torch.optim.Adam(model.parameters(), lr=1e-3)


task = Task()
'''
_NEXT = """{file} is written, for {spec}.

1. Make {batch} beside it, from your own data:

     import numpy
     numpy.savez("{batch}", {arrays})

   {input}: what the model takes, float32, samples first; {labels}: if there are any.
   An array `split` of "train" and "val" keeps held-out samples apart.
   16 vectors per code or more make the usage certain.

2. In {file}, fill in:
   {fill_in}.

3. vqdoctor inspect CKPT --task {file}:task
"""


@frozen
class _Found:
    """The call that builds a model, and the names of its input.

    Attributes:
        build: the call that builds it, as a line of code.
        lacking: arguments of that call that have no value yet.
        takes: the names of its forward(), without those that may be left out; empty where it is not known.
        labels: the name of its labels.
    """

    build: str
    lacking: tuple[str, ...]
    takes: tuple[str, ...]
    labels: str


def write_task(spec: str, output: Path, arguments: Mapping[str, Any]) -> str:
    """Write the task file of a model; return the next steps, for a terminal.

    Args:
        spec: where the model, or what builds it, is imported from.
        output: the file to write.
        arguments: arguments of the call that builds it.

    Raises:
        UserError: if the file exists, the model cannot be imported, or the file cannot be written.
    """
    if output.exists():
        raise UserError(f"{output} exists, and is not written over", "name another file: -o OUT.py")
    if spec == "hf":
        hint = "vqdoctor inspect FOLDER --model hf --data batch.npz"
        raise UserError("hf needs no task file", hint)
    found = _look_at(spec, load_object(spec, "MODEL"), arguments)
    name = next(iter(found.takes), "x")
    call = "x" if name == "x" else f"{name}=x"
    lines = {
        "spec": spec, "file": output.name, "batch": BATCH, "input": name, "call": call, "build": found.build,
    }  # fmt: skip
    imports = [*(["import copy", ""] if found.build.startswith("copy.") else ()), *_imports(spec, output)]
    text = _TEMPLATE.format(imports="\n".join(imports), **lines)
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UserError(f"{output}: {error.strerror or error}", "write it elsewhere: -o OUT.py") from error
    fill_in = ["the VQ loss's weight", "the batch size", *(f"{name}=" for name in found.lacking)]
    arrays = ", ".join(f"{name}={name}" for name in (*(found.takes or ("x",)), found.labels))
    return _NEXT.format(**lines, arrays=arrays, labels=found.labels, fill_in=", ".join(fill_in))


def _look_at(spec: str, named: Any, arguments: Mapping[str, Any]) -> _Found:
    """Return how a model is built and what it takes; it is built for that where no argument is lacking."""
    try:
        import torch
    except ImportError:
        raise MissingPackageError("torch", "a model", "torch") from None
    name = spec.rpartition(":")[2]
    if isinstance(named, torch.nn.Module):
        return _taking(named.forward, f"copy.deepcopy({name})  # FILL IN: a call that builds it afresh", ())
    if not callable(named):
        what = f"{spec}: is a {type(named).__name__}"
        raise UserError(what, "name a torch.nn.Module, or a class or function that builds one")
    with blamed(f"the signature of {spec}"):
        parameters = inspect.signature(named).parameters.values()
    lacking = tuple(
        p.name
        for p in parameters
        if p.default is p.empty
        and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        and p.name not in arguments
    )
    given = [f"{key}={value!r}" for key, value in arguments.items()]
    call = f"{name}({', '.join([*given, *(f'{key}=FILL_IN' for key in lacking)])})"
    build = f"{call}  # FILL IN: the arguments of your training"
    if lacking:
        return _taking(getattr(named, "forward", None), build, lacking)
    with blamed(spec, "--model-arg K=V gives it its arguments"):
        built = named(**arguments)
    if not isinstance(built, torch.nn.Module):
        raise UserError(f"{spec}: gives a {type(built).__name__}", "name what builds a torch.nn.Module")
    return _taking(built.forward, build, ())


def _taking(forward: Callable[..., object] | None, build: str, lacking: tuple[str, ...]) -> _Found:
    """Return the names that the forward() of a model takes: the first, and those without a default."""
    from vqdoctor.models.usual_losses import LABELS

    parameters = list(inspect.signature(forward).parameters.values()) if forward else []
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    named = [p for p in parameters if p.kind in kinds and p.name != "self"]
    labels = next((p.name for p in named if p.name in LABELS), "y")
    takes = [p.name for i, p in enumerate(named) if not i or p.default is p.empty]
    return _Found(
        build=build, lacking=lacking, takes=tuple(name for name in takes if name != labels), labels=labels
    )


def _imports(spec: str, output: Path) -> Iterator[str]:
    """Yield the lines that import what builds the model, into a file in another folder than it may lie in."""
    place, _, name = spec.rpartition(":")
    first = name.partition(".")[0]
    if not place.endswith(".py"):
        yield f"from {place} import {first}"
        return
    source = Path(place).resolve()
    if not source.stem.isidentifier():
        yield from ("from vqdoctor.models.user_code import load_object", "")
        yield f'{first} = load_object("{source.as_posix()}:{first}", "{output.name}")'
        return
    if source.parent != output.resolve().parent:
        yield from ("import sys", "", f'sys.path.insert(0, "{source.parent.as_posix()}")')
    yield f"from {source.stem} import {first}"
