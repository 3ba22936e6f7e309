"""Settings: defaults, below pyproject.toml, below flags; a wrong one is told with what is known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from vqdoctor.core.configure import configure, nearest_pyproject
from vqdoctor.core.errors import UserError, suggestion
from vqdoctor.core.levels import Severity
from vqdoctor.core.settings import Settings


def told(folder: Path, flags: Mapping[str, object]) -> Settings:
    return configure(folder, flags)[0]


def written(folder: Path, text: str) -> Path:
    (folder / "pyproject.toml").write_text(text, encoding="utf-8")
    return folder


def test_defaults_where_nothing_is_told(tmp_path: Path) -> None:
    assert told(tmp_path, {"select": None, "fail-on": None}) == Settings()
    assert Settings().bar is Severity.ERROR


def test_the_file_overrides_defaults_and_flags_override_the_file(tmp_path: Path) -> None:
    written(tmp_path, '[tool.vqdoctor]\nfail-on = "warning"\nseed = 7\nselect = ["vq5", "VQ101"]\n')
    config = told(tmp_path, {"seed": 9, "verify": True, "ignore": ["vq502, VQ503"]})
    assert (config.fail_on, config.seed, config.verify) == ("warning", 9, True)
    assert config.select == ("VQ5", "VQ101")
    assert config.ignore == ("VQ502", "VQ503")
    assert config.bar is Severity.WARNING


def test_never_is_no_bar(tmp_path: Path) -> None:
    assert told(tmp_path, {"fail-on": "never"}).bar is None


def test_a_flag_can_switch_off_what_the_file_switched_on(tmp_path: Path) -> None:
    written(tmp_path, "[tool.vqdoctor]\nverify = true\n")
    assert told(tmp_path, {"verify": None}).verify
    assert not told(tmp_path, {"verify": False}).verify


@pytest.mark.parametrize("spelling", ['"VQ502.warn_below" = 0.5', "vq502.warn_below = 0.5"])
def test_limits_merge_by_name(tmp_path: Path, spelling: str) -> None:
    written(tmp_path, f"[tool.vqdoctor.limits]\n{spelling}\nVQ502.fail_below = 0.2\n")
    limits = ["VQ502.fail_below=0.1", "VQ501.floor=3", "vq501.floor=4"]
    assert told(tmp_path, {"limits": limits}).limits == {
        "VQ502": {"warn_below": 0.5, "fail_below": 0.1},
        "VQ501": {"floor": 4.0},
    }


def test_the_nearest_pyproject_is_taken_and_it_alone(tmp_path: Path) -> None:
    written(tmp_path, "[tool.vqdoctor]\nseed = 1\n")
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert told(inner, {}).seed == 1
    written(tmp_path / "a", "[tool.other]\nx = 1\n")
    assert nearest_pyproject(inner) == tmp_path / "a" / "pyproject.toml"
    assert told(inner, {}).seed == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "[tool.vqdoctor]\nfail_on = 'error'\n",
            "tool.vqdoctor.fail_on: no such setting: did you mean fail-on?",
        ),
        ("[tool.vqdoctor]\nxyz = 1\n", "fail-on, format, gate, goals, histogram, ignore"),
        ("[tool.vqdoctor]\nseed = -1\n", "-1 is not a seed"),
        ("[tool.vqdoctor]\nseed = true\n", "True is not a seed"),
        ("[tool.vqdoctor]\nverify = 1\n", "neither true nor false"),
        ("[tool.vqdoctor]\nselect = 'VQ1'\n", "not a list of codes"),
        ("[tool.vqdoctor]\nselect = ['VQ1,']\n", "an empty code"),
        ("[tool.vqdoctor]\ndevice = 'tpu'\n", "'tpu' is none of auto, cpu, cuda, mps"),
        ("[tool.vqdoctor]\nlayout = 'kk'\n", "none of kd, dk"),
        ("[tool.vqdoctor]\nlayer = ''\n", "is not a name"),
        ("[tool.vqdoctor.limits]\nVQ502 = 3\n", "names no limit"),
        ("[tool.vqdoctor.limits]\nVQ502.warn_below = nan\n", "not a finite number"),
        ("[tool.vqdoctor.limits]\nVQ502.warn_below = '1'\n", "not a finite number"),
        (f"[tool.vqdoctor.limits]\nVQ502.warn_below = {10**400}\n", "not a finite number"),
        (f"[tool.vqdoctor.gate]\nmin-accuracy = {10**400}\n", "not a finite number"),
        ("tool = 3\n[vqdoctor]\nx=1\n", ""),
        ("[tool]\nvqdoctor = 3\n", "not a table"),
        ("[tool.vqdoctor\n", "not valid TOML"),
    ],
)
def test_what_is_wrong_in_the_file_is_said_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    written(tmp_path, text)
    if not says:
        assert told(tmp_path, {}) == Settings()
        return
    with pytest.raises(UserError, match=r"pyproject\.toml") as error:
        told(tmp_path, {})
    assert says in str(error.value)


def test_a_file_that_is_no_text_is_an_error_too(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not valid TOML"):
        told(tmp_path, {})


@pytest.mark.parametrize(
    "text", ["VQ502", "VQ502=1", "VQ502.x", "VQ502.x=y", ".x=1", "VQ502.=1", "VQ502.x=inf"]
)
def test_a_malformed_limit(text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--limit"):
        told(tmp_path, {"limits": [text]})


def test_a_bad_flag_is_named_as_a_flag(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--fail-on: 'err' is none of error, warning, never"):
        told(tmp_path, {"fail-on": "err"})


def test_suggestion_lists_the_near_one_and_all() -> None:
    assert suggestion("jsn", ["rich", "json"]) == "did you mean json? known: json, rich"
    assert suggestion("q", ["rich", "json"]) == "known: json, rich"
