"""The command line in processes that are forked from one that has imported it: no test waits for torch again.

Each command has a process, a folder, an environment and streams of its own, and ends as a program does. What
Python reads of the environment when it starts is that of the first process: `can` says if it is the same.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from processes import PATIENCE, start

from vqdoctor.__main__ import start as start_vqdoctor

_READ_AT_START = ("PYTHON", "OMP_", "MKL_", "OPENBLAS_", "LD_")


class Imported:
    """A process that has imported the command line, and forks itself for each command."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.started_with = _at_start(environment)
        self.parent = start(__file__, stdin=subprocess.PIPE, env=dict(environment))

    def can(self, environment: Mapping[str, str]) -> bool:
        """Whether a new process of this environment would be no other than a forked one."""
        return _at_start(environment) == self.started_with

    def run(
        self, *arguments: str | Path, cwd: Path, env: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run `python -m vqdoctor` with these arguments to its end."""
        command = ["vqdoctor", *map(str, arguments)]
        with tempfile.TemporaryDirectory() as folder:
            streams = [Path(folder) / name for name in ("stdout", "stderr")]
            asked = {"command": command, "cwd": str(cwd), "env": dict(env), "streams": [*map(str, streams)]}
            assert self.parent.stdin is not None and self.parent.stdout is not None
            self.parent.stdin.write(json.dumps(asked) + "\n")
            self.parent.stdin.flush()
            code = int(self.parent.stdout.readline())
            return subprocess.CompletedProcess(
                command, code, *(s.read_text(encoding="utf-8") for s in streams)
            )

    def end(self) -> None:
        """Let the process end."""
        self.parent.communicate()


def _at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_READ_AT_START)}


def _serve() -> None:
    """Fork a process for each line that comes in, and write its exit code, until no more come."""
    import vqdoctor

    for module in pkgutil.walk_packages(vqdoctor.__path__, "vqdoctor."):
        if not module.name.startswith("vqdoctor.integrations") and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    gc.freeze()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if not child:
            answers.close()
            _become(**asked)
        _, status = os.waitpid(child, 0)
        answers.write(f"{os.waitstatus_to_exitcode(status)}\n")
        answers.flush()


def _become(command: list[str], cwd: str, env: dict[str, str], streams: list[str]) -> NoReturn:
    """Be a process of this command, as a shell starts it, to its end.

    The end leaves out what takes longest: Python would take down every module that was imported.
    """
    signal.alarm(PATIENCE)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, (name, place) in enumerate(zip(("stdout", "stderr"), streams, strict=True), start=1):
        os.dup2(os.open(place, os.O_WRONLY | os.O_CREAT), number)
        setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))
    sys.argv, sys.path[0] = command, cwd
    code = 1
    try:
        start_vqdoctor()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else code
    except BaseException:
        traceback.print_exc()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve()
