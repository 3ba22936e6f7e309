"""Running the command line as a shell does."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import python

import vqdoctor

ROOT = Path(vqdoctor.__file__).parents[1]
SAMPLES = Path(__file__).parents[2] / "sample_checkpoints"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def environment() -> dict[str, str]:
    """An environment in which this checkout's package is found from any folder."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    quiet = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "VQDOCTOR_TRACEBACK")}
    return {**quiet, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"}


@pytest.fixture
def shell(tmp_path: Path, environment: dict[str, str]) -> Run:
    """`python -m vqdoctor` with these arguments, in an empty folder."""

    def run(*arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        return python("-m", "vqdoctor", *arguments, cwd=tmp_path, env={**environment, **env})

    return run


@pytest.fixture
def sick() -> Path:
    """A collapsed checkpoint."""
    return SAMPLES / "no-ste.pt"


@pytest.fixture
def healthy() -> Path:
    """A healthy checkpoint."""
    return SAMPLES / "healthy-256.pt"
