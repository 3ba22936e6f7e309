"""Reading a checkpoint, and everything that reads none, never loads torch; nor does it need it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from processes import python

REPORT_MODULES = """
import sys
{before}
from vqdoctor.cli.main import main
code = main(sys.argv[1:])
roots = {{name.partition(".")[0] for name, module in sys.modules.items() if module is not None}}
heavy = {{"torch", "numpy", "matplotlib", "scipy", "sklearn", "safetensors"}}
print("LOADED", *sorted(roots & heavy), file=sys.stderr)
sys.exit(code)
"""


def loaded(
    environment: dict[str, str], folder: Path, *arguments: str | Path, before: str = ""
) -> tuple[set[str], subprocess.CompletedProcess[str]]:
    """Run a command; return which heavy packages it had loaded at its end, and how it ended."""
    done = python("-c", REPORT_MODULES.format(before=before), *arguments, cwd=folder, env=environment)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("LOADED")]
    return set(line.split()[1:]), done


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("inspect", "--help"),
        ("gate", "--help"),
        ("explain", "VQ101"),
        ("checks",),
        ("--version",),
    ],
)
def test_what_reads_no_file_loads_nothing_heavy(
    environment: dict[str, str], tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    heavy, done = loaded(environment, tmp_path, *arguments)
    assert done.returncode == 0 and done.stdout
    assert heavy == set()


@pytest.mark.parametrize("command", ["inspect", "gate"])
def test_a_checkpoint_without_data_loads_numpy_and_no_torch(
    environment: dict[str, str], tmp_path: Path, sick: Path, command: str
) -> None:
    heavy, done = loaded(environment, tmp_path, command, sick)
    assert done.returncode == 1
    assert heavy == {"numpy"}


def test_a_saved_report_is_gated_without_torch(
    environment: dict[str, str], tmp_path: Path, healthy: Path
) -> None:
    loaded(environment, tmp_path, "inspect", healthy, "--save", "json=report.json")
    before = "sys.modules['torch'] = None"
    heavy, done = loaded(environment, tmp_path, "gate", "report.json", before=before)
    assert (done.returncode, heavy & {"torch"}) == (0, set())


@pytest.mark.parametrize("command", ["inspect", "gate"])
def test_a_checkpoint_is_read_where_there_is_no_torch(
    environment: dict[str, str], tmp_path: Path, healthy: Path, command: str
) -> None:
    _, done = loaded(environment, tmp_path, command, healthy, before="sys.modules['torch'] = None")
    assert done.returncode == 0, done.stderr
    assert "HEALTHY" in done.stdout


def test_a_batch_without_torch_is_one_line_with_the_install_command(
    environment: dict[str, str], tmp_path: Path, healthy: Path
) -> None:
    data = healthy.with_name("digits.npz")
    _, done = loaded(
        environment, tmp_path, "inspect", healthy, "--data", data, before="sys.modules['torch'] = None"
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "pip install 'vqdoctor[torch]'" in done.stderr.splitlines()[0]


def test_these_tests_can_fail(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("")
    before = f"sys.path.insert(0, {str(tmp_path)!r}); import torch"
    heavy, _ = loaded(environment, tmp_path, "--help", before=before)
    assert heavy == {"torch"}
