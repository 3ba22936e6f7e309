"""Code and data that pyproject.toml names: from its folder, below flags, and named in errors and reports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vqdoctor.core.configure import configure
from vqdoctor.core.errors import UserError
from vqdoctor.core.settings import Settings, UserModel

TASK = '[tool.vqdoctor]\ntask = "src/t.py:task"\n'
MODEL = """
[tool.vqdoctor]
model = "m.py:build"
model-args = { codes = 32 }
vq-loss = "commit"
data = "val.npz"
trained-vq-weight = 0.25
"""


Write = Callable[[str], int]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    return (tmp_path / "pyproject.toml").write_text


def test_paths_are_taken_from_the_folder_of_the_file(write: Write, tmp_path: Path) -> None:
    write(TASK + 'checkpoint = "c.pt"\ndata = ["a.npz", "/b.npz"]\n')
    (tmp_path / "runs").mkdir()
    settings, user_model = configure(tmp_path / "runs", {})
    assert user_model.task == f"{tmp_path}/src/t.py:task"
    assert settings.checkpoint == tmp_path / "c.pt" and settings.data == (tmp_path / "a.npz", Path("/b.npz"))
    write('[tool.vqdoctor]\nmodel = "hf"\n')
    assert configure(tmp_path, {})[1].model == "hf"
    write('[tool.vqdoctor]\ntask = "package.module:task"\n')
    assert configure(tmp_path, {})[1].task == "package.module:task"


def test_a_flag_takes_the_place_of_all_that_belongs_to_the_files_model(write: Write, tmp_path: Path) -> None:
    write(MODEL)
    settings, user_model = configure(tmp_path, {})
    assert (user_model.vq_loss, user_model.trained_vq_weight) == ("commit", 0.25)
    assert configure(tmp_path, {"model-args": ["codes=64"]})[1].model_args == {"codes": 64}
    settings, user_model = configure(tmp_path, {"task": "t.py:task"})
    assert (user_model.task, user_model.model, user_model.vq_loss) == ("t.py:task", None, None)
    assert settings.data == () and user_model.model_args == {}
    settings, user_model = configure(tmp_path, {"model": "other.py:build"})
    assert (user_model.model, user_model.vq_loss) == ("other.py:build", None)
    assert settings.data == (tmp_path / "val.npz",) and user_model.model_args == {}
    write(TASK)
    settings, user_model = configure(tmp_path, {"data": [Path("x.npz")]})
    assert user_model.task is None and settings.data == (Path("x.npz"),)


def test_bare_leaves_the_code_and_the_data_of_the_file_out(write: Write, tmp_path: Path) -> None:
    write(MODEL + "seed = 3\n")
    settings, user_model = configure(tmp_path, {"bare": True})
    assert not user_model.runs and settings.data == () and user_model.trained_vq_weight is None
    assert settings.seed == 3 and settings.named_in_file == ""
    settings, user_model = configure(tmp_path, {})
    assert settings.without_model(user_model) == (Settings(seed=3), UserModel())
    settings, user_model = configure(tmp_path, {"data": [Path("x.npz")]})
    assert settings.without_model(user_model)[0].data == (Path("x.npz"),)


def test_what_nothing_would_use_is_no_error(write: Write, tmp_path: Path) -> None:
    write('[tool.vqdoctor]\nvq-loss = "commit"\ntrained-vq-weight = 1\n')
    assert configure(tmp_path, {})[1].vq_loss is None
    user_model = configure(tmp_path, {"model": "m.py:build"})[1]
    assert (user_model.vq_loss, user_model.trained_vq_weight) == ("commit", 1.0)


def test_the_report_tells_what_the_file_names(write: Write, tmp_path: Path) -> None:
    write(MODEL)
    named = configure(tmp_path, {})[0].named_in_file
    file = tmp_path / "pyproject.toml"
    assert named == f"model {tmp_path}/m.py:build and data {tmp_path}/val.npz, named by {file}"
    assert configure(tmp_path, {"data": [Path("x.npz")]})[0].named_in_file == (
        f"model {tmp_path}/m.py:build, named by {file}"
    )


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (TASK, "src/t.py: there is no such file"),
        ('[tool.vqdoctor]\nlayer = "vq.0"\n', "no VQ layer 'vq.0' in the file"),
        ('[tool.vqdoctor]\nselect = ["VQ1", "VQ999"]\n', "there is no check VQ999"),
        ("[tool.vqdoctor.limits]\nVQ502.nope = 1\n", "VQ502 has no limit 'nope'"),
        ('[tool.vqdoctor]\ndevice = "mps"\n', "--device mps: there is none here"),
    ],
)
def test_an_error_about_a_value_of_the_file_names_the_file(
    write: Write, tmp_path: Path, text: str, what: str
) -> None:
    write(text)
    settings, _ = configure(tmp_path, {})
    with pytest.raises(UserError) as error, settings.blaming_the_file():
        raise UserError(what.replace("src/", f"{tmp_path}/src/"), "correct it")
    assert error.value.hint.startswith("correct it; tool.vqdoctor.")
    assert error.value.hint.endswith(f"is set in {tmp_path / 'pyproject.toml'}")
    with pytest.raises(UserError) as error, settings.blaming_the_file():
        raise UserError("x.pt: truncated", "fetch it again")
    assert error.value.hint == "fetch it again"


def test_a_contradiction_in_the_file_names_it(write: Write, tmp_path: Path) -> None:
    write(TASK + 'model = "m.py:build"\n')
    with pytest.raises(UserError, match="a task brings its own model") as error:
        configure(tmp_path, {})
    assert "pyproject.toml" in error.value.hint
