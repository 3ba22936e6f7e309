"""Running the command line as a shell does."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from forked import Imported
from processes import python

import vqdoctor

ROOT = Path(vqdoctor.__file__).parents[1]
SAMPLES = Path(__file__).parents[2] / "sample_checkpoints"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def environment() -> dict[str, str]:
    return found_anywhere()


def found_anywhere() -> dict[str, str]:
    """Return an environment in which this checkout's package is found from any folder."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    quiet = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "VQDOCTOR_TRACEBACK")}
    return {**quiet, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"}


@pytest.fixture(scope="session")
def imported() -> Iterator[Imported]:
    """The process that commands are forked from."""
    process = Imported(found_anywhere())
    yield process
    process.end()


@pytest.fixture
def shell(tmp_path: Path, environment: dict[str, str], imported: Imported) -> Run:
    """`python -m vqdoctor` with these arguments, in an empty folder."""

    def run(*arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        asked = {**environment, **env}
        if imported.can(asked):
            return imported.run(*arguments, cwd=tmp_path, env=asked)
        return python("-m", "vqdoctor", *arguments, cwd=tmp_path, env=asked)

    return run


@pytest.fixture
def sick() -> Path:
    """A collapsed checkpoint."""
    return SAMPLES / "no-ste.pt"


@pytest.fixture
def healthy() -> Path:
    """A healthy checkpoint."""
    return SAMPLES / "healthy-256.pt"
