"""Models of transformers and diffusers, from a local folder with a config.json (`--model hf`).

Nothing is fetched and no code but the installed package's is run: the class that config.json names must
be one of the package's own models, and the weights come from vqdoctor's own reader.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vqdoctor.core.errors import UserError
from vqdoctor.core.json_text import parse
from vqdoctor.layouts.view import Tensor
from vqdoctor.models.load import Loaded, load_state
from vqdoctor.models.user_code import blamed

_LARGEST = 1 << 24
VQ_LOSS: Mapping[str, str] = {"DacModel": "loss"}
"""Outputs that are the VQ loss under another name, by class."""


def load(path: Path, entries: Mapping[str, Tensor]) -> tuple[torch.nn.Module, Loaded]:
    """Build the model that the config.json beside a checkpoint describes, with the checkpoint in it.

    Args:
        path: the checkpoint, or the folder that holds it and its config.json.
        entries: the checkpoint's tensors by clean name.

    Raises:
        UserError: if there is no such config, its package is not installed or lacks the class, or the
            weights do not fit.
    """
    config = _config(path if path.is_dir() else path.parent)
    package, name = _class_name(config)
    if importlib.util.find_spec(package) is None:
        what = f"--model hf needs {package} for {name}, which is not installed here"
        raise UserError(what, f"pip install {package}")
    with blamed(f"--model hf: building {name}"):
        if package == "diffusers":
            model = _model_class(package, name, "ModelMixin").from_config(config)
            return model, load_state(model, entries)
        return _from_transformers(name, config, entries)


def _config(folder: Path) -> dict[str, object]:
    file = folder / "config.json"
    try:
        if file.stat().st_size > _LARGEST:
            raise ValueError("too large")
        config = parse(file.read_bytes())
    except FileNotFoundError:
        hint = "--model hf takes a folder that save_pretrained wrote, or a file in one"
        raise UserError(f"{folder} has no config.json", hint) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: not readable as JSON ({type(error).__name__})", "fetch it again") from error
    if not isinstance(config, dict):
        raise UserError(f"{file}: holds no settings", "fetch it again")
    return config


def _class_name(config: Mapping[str, object]) -> tuple[str, str]:
    """Return the package and the class that a config names."""
    if isinstance(name := config.get("_class_name"), str):
        return "diffusers", name
    names = config.get("architectures")
    if isinstance(names, list) and names and isinstance(names[0], str):
        return "transformers", names[0]
    hint = "build the model yourself: --model PKG.MODULE:FACTORY"
    raise UserError("config.json names no model class (architectures, or _class_name)", hint)


def _model_class(package: str, name: str, base: str) -> Any:
    """Return the package's own model class of that name; a config may name nothing else."""
    module = importlib.import_module(package)
    found = getattr(module, name, None) if name.isidentifier() else None
    if not (isinstance(found, type) and issubclass(found, getattr(module, base))):
        what = f"config.json asks for {name!r}, which is not a model of {package} {module.__version__}"
        hint = "code that comes with a checkpoint is never run: --model PKG.MODULE:FACTORY takes your own"
        raise UserError(what, hint)
    return found


def _from_transformers(
    name: str, config: dict[str, object], entries: Mapping[str, Tensor]
) -> tuple[torch.nn.Module, Loaded]:
    """Build and load by transformers' own way from memory, which knows the names of older releases."""
    cls = _model_class("transformers", name, "PreTrainedModel")
    state = {key: torch.from_numpy(np.array(tensor.read())) for key, tensor in entries.items()}
    with _quiet():
        model, info = cls.from_pretrained(
            None,
            config=cls.config_class.from_dict(config),
            state_dict=state,
            output_loading_info=True,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
        )
    for key, file_shape, own_shape in info["mismatched_keys"]:
        what = f"{key} is {list(file_shape)} in the checkpoint and {list(own_shape)} in the model"
        raise UserError(what, "config.json is not this checkpoint's")
    missing, unexpected = (tuple(sorted(info[key])) for key in ("missing_keys", "unexpected_keys"))
    return model.float(), Loaded(missing=missing, unexpected=unexpected)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' progress bars and load reports off the terminal."""
    logging: Any = importlib.import_module("transformers.utils.logging")
    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
