"""Importing what the user names, and one clear line for everything that goes wrong in it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from vqdoctor.capture.vectors import rows
from vqdoctor.core.errors import UserError
from vqdoctor.models.user_code import blamed, load_object


@pytest.fixture(autouse=True)
def _modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in an empty folder, and forget afterwards what was imported from it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(name: str, text: str) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_file_can_import_the_file_beside_it_even_later() -> None:
    write("code/beside_it.py", "answer = 42\n")
    write(
        "code/my_task.py", "from beside_it import answer\ndef late():\n    import later\n    return later.x\n"
    )
    write("code/later.py", "x = 7\n")
    assert load_object("code/my_task.py:answer", "--task") == 42
    assert load_object("code/my_task.py:late", "--task")() == 7


def test_a_file_is_read_anew_each_time() -> None:
    write("edited.py", "x = 1\n")
    assert load_object("edited.py:x", "--task") == 1
    write("edited.py", "x = 22\n")
    assert load_object("edited.py:x", "--task") == 22


def test_a_module_of_the_working_directory_and_a_dotted_name() -> None:
    write("my_package/__init__.py", "")
    write("my_package/tasks.py", "class Holder:\n    task = 'found'\n")
    assert load_object("my_package.tasks:Holder.task", "--task") == "found"


@pytest.mark.parametrize("name", ["json", "numpy"])
def test_a_file_never_takes_the_place_of_another_module(name: str) -> None:
    import json

    import numpy as np

    write(f"{name}.py", "mine = True\n")
    assert load_object(f"{name}.py:mine", "--task") is True
    assert sys.modules["json"] is json
    assert sys.modules["numpy"] is np


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (
            "vq_task.py",
            "not of the form PKG.MODULE:NAME or PATH/TO/FILE.py:NAME: such as --task vq_task.py:task",
        ),
        (":task", "not of the form"),
        ("gone.py:task", "gone.py: there is no such file"),
        ("nowhere.tasks:task", "there is no module 'nowhere'"),
        ("good.py:tusk", "good.py has no 'tusk': did you mean task? it defines task, other, make"),
        ("syntax.py:task", "syntax.py:2: SyntaxError"),
        ("fails.py:task", "ZeroDivisionError: division by zero (fails.py:3)"),
        ("lacks.py:task", "ModuleNotFoundError: No module named 'not_installed' (lacks.py:1)"),
        ("leaves.py:task", "SystemExit: 7 (leaves.py:2)"),
        ("deep.py:task", "(helper_of_deep.py:2)"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_place(spec: str, says: str) -> None:
    imports = "import os\nfrom pathlib import Path\nfrom os.path import join\n"
    write("good.py", f"{imports}task = other = 1\ndef make(): ...\n")
    write("syntax.py", "x = 1\ndef (\n")
    write("fails.py", "def f():\n    '''Divide.'''\n    return 1 / 0\nf()\n")
    write("lacks.py", "import not_installed\n")
    write("leaves.py", "import sys\nsys.exit(7)\n")
    write("deep.py", "import helper_of_deep\nhelper_of_deep.f()\n")
    write("helper_of_deep.py", "def f():\n    raise ValueError('first line\\nsecond line')\n")
    with pytest.raises(UserError) as caught:
        load_object(spec, "--task")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_module_that_failed_is_not_kept() -> None:
    write("broken_once.py", "1 / 0\n")
    for _ in range(2):
        with pytest.raises(UserError, match="ZeroDivisionError"):
            load_object("broken_once.py:task", "--task")


def test_an_error_of_our_own_hook_is_not_blamed_on_the_user() -> None:
    def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
        rows(args, 0)  # an error of ours: no tensor

    layer = nn.Linear(2, 2)
    layer.register_forward_pre_hook(hook)
    with pytest.raises(AttributeError), blamed("the model fails"):
        layer(torch.ones(1, 2))
    with pytest.raises(UserError, match="the model fails: RuntimeError"), blamed("the model fails"):
        nn.Linear(2, 2)(torch.ones(1, 3))
