"""Every declared option reaches the settings of each command that has it: a flag, a key, a keyword."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import vqdoctor
from vqdoctor.cli import _options
from vqdoctor.cli.main import COMMANDS, main
from vqdoctor.core.option import GROUPS, RUNS, Kind, Option
from vqdoctor.core.retraining import Goals
from vqdoctor.core.settings import OPTIONS, Settings, UserModel, options

VALUES: Mapping[str, tuple[list[str], str, object]] = {
    "task": (["t.py:task"], '"t.py:task"', "t.py:task"),
    "model": (["m.py:build"], '"m.py:build"', "m.py:build"),
    "model-args": (["dim=64"], "{ dim = 64 }", {"dim": 64}),
    "data": (["x.npz"], '"x.npz"', (Path("x.npz"),)),
    "limits": (["VQ502.fail_below=0.1"], '{ "VQ502.fail_below" = 0.1 }', {"VQ502": {"fail_below": 0.1}}),
    "select": (["VQ5"], '["VQ5"]', ("VQ5",)),
    "ignore": (["VQ502"], '["VQ502"]', ("VQ502",)),
    "checkpoint": (["c.pt"], '"c.pt"', Path("c.pt")),
    "vq-weight": (["0.2"], "0.2", 0.2),
    "gate.require": (["usage>=0.5"], '["usage>=0.5"]', None),
    "format": (["json"], '"json"', "json"),
}
"""An option's value as flags, as TOML, and as the settings hold it, where its kind does not tell."""


def value_of(option: Option) -> tuple[list[str], str, object]:
    kind: Kind = option.kind
    if option.name in VALUES:
        return VALUES[option.name]
    if kind.type is bool:
        return [], "true", True
    if kind.choices:
        return [kind.choices[-1]], f'"{kind.choices[-1]}"', kind.choices[-1]
    if kind.type is int:
        return ["7"], "7", 7
    if kind.type is float or option.name.startswith("gate."):
        return ["0.5"], "0.5", 0.5
    if kind.type is Path:
        return ["f.json"], '"f.json"', Path("f.json")
    return (["a"], '["a"]', ("a",)) if kind.several else (["a"], '"a"', "a")


def found(option: Option, settings: Settings, user_model: UserModel) -> Any:
    if option.home is UserModel:
        return getattr(user_model, option.field)
    if option.home is Settings:
        return getattr(settings, option.field)
    if option.home is Goals:
        return getattr(settings.goals, option.field)
    if option.field in ("max_drop", "aggregate", "inconclusive"):
        return getattr(settings.gate, option.field)
    (assertion,) = settings.gate.assertions
    return assertion.threshold.value


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the settings that a command makes of its arguments; the command itself does nothing."""
    monkeypatch.chdir(tmp_path)
    told = SimpleNamespace()

    def made(*arguments: Any) -> tuple[Settings, UserModel]:
        settings, user_model = configure(*arguments)
        told.made = settings, user_model
        raise KeyboardInterrupt  # the command is not run

    configure = _options.configure
    monkeypatch.setattr(_options, "configure", made)

    def call(command: str, *arguments: str) -> tuple[Settings, UserModel]:
        assert main([command, "x.pt", *arguments]) == 130
        return told.made

    return call


def needs(option: Option) -> list[str]:
    """Return the flags without which an option is refused."""
    if option.name in ("diff", "write"):
        return ["--source", "model.py"]
    return ["--model", "m.py:build"] if option.name in ("model-args", "vq-loss", "task-loss") else []


@pytest.mark.parametrize("command", RUNS)
@pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if option.commands])
def test_a_flag_reaches_the_settings(name: str, command: str, run: Any) -> None:
    option = OPTIONS[name]
    texts, _, expected = value_of(option)
    for flag in option.flags:
        if command not in option.commands:
            same = [o.name for o in options(command) if flag in o.flags]  # gate and fix both have --min-usage
            assert same or main([command, "x.pt", flag, *texts]) == 2
            continue
        settings = run(command, *needs(option), flag, *texts)
        assert found(option, *settings) == (0.5 if expected is None else expected)
        assert name in settings[0].flags


@pytest.mark.parametrize("command", RUNS)
@pytest.mark.parametrize("name", list(OPTIONS))
def test_a_key_of_pyproject_reaches_the_settings(name: str, command: str, run: Any, tmp_path: Path) -> None:
    option = OPTIONS[name]
    _, toml, expected = value_of(option)
    table, _, key = name.rpartition(".")
    model = 'model = "m.py:build"\n' if needs(option) or name == "trained-vq-weight" else ""
    (tmp_path / "pyproject.toml").write_text(
        f"[tool.vqdoctor{'.' + table if table else ''}]\n{model}{key} = {toml}\n"
    )
    if not option.in_file:
        assert main([command, "x.pt"]) == 2
        return
    value = found(option, *run(command))
    if name == "data":
        assert value == (tmp_path / "x.npz",)
    elif option.kind.below:
        assert str(value) == str(tmp_path / str(expected))
    else:
        assert value == (0.5 if expected is None else expected)


@pytest.mark.parametrize("option", options("examine"), ids=lambda option: option.name)
def test_a_keyword_of_python_reaches_the_settings(option: Option, monkeypatch: pytest.MonkeyPatch) -> None:
    from vqdoctor.engine import notebook

    told = SimpleNamespace()

    def examine(path: object, *, settings: Settings, user_model: UserModel, **_: object) -> None:
        told.made = settings, user_model
        raise KeyboardInterrupt

    monkeypatch.setattr(notebook, "examine_quietly", examine)
    keyword, expected = option.name.replace("-", "_"), value_of(option)[2]
    more = {"model": print} if needs(option) else {}
    with pytest.raises(KeyboardInterrupt):
        vqdoctor.examine("x.pt", **{**more, keyword: expected})
    assert found(option, *told.made) == expected
    assert keyword in inspect.signature(vqdoctor.examine).parameters
    assert option.help in (vqdoctor.examine.__doc__ or "")


def test_an_unknown_keyword_is_told_with_the_one_that_it_looks_like() -> None:
    with pytest.raises(
        TypeError, match=r"examine\(\) has no keyword 'layer_name'.* known: batches, codebook_key"
    ):
        vqdoctor.examine("x.pt", layer_name="vq")
    with pytest.raises(TypeError, match="did you mean codebook_key"):
        vqdoctor.examine("x.pt", codebok_key="vq")


@pytest.mark.parametrize("command", RUNS)
def test_the_help_shows_every_option_in_its_group(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    titles = [title for title in GROUPS if f"\n{title}:\n" in text]
    assert titles == [title for title in GROUPS if title in {option.group for option in options(command)}]
    for option in options(command):
        section = text.partition(f"\n{option.group}:\n")[2].partition("\n\n")[0]
        assert option.flags[0] in section.split() or f"{option.flags[0]} " in section, option.name


def test_every_option_has_a_help_and_a_group_and_no_two_share_a_flag() -> None:
    assert {*RUNS} <= {*COMMANDS}
    for command in RUNS:
        flags = [flag for option in options(command) for flag in option.flags]
        assert len(flags) == len(set(flags))
    for option in OPTIONS.values():
        assert option.group in GROUPS and option.help.endswith(".")
        assert option.home in (Settings, UserModel, Goals) or option.name.startswith("gate.")
