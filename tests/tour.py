"""The tour of README.md, from collapsed to cured and ablated: `python tests/tour.py` runs and writes it anew.

It trains for some minutes, so `make docs` leaves it out; an acceptance test compares it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
START, END = "<!-- tour -->\n", "<!-- /tour -->"


def _first(lines: Sequence[str]) -> list[str]:
    return [re.sub(r" in \d+ (?:s|min)$", "", lines[0])]  # the time differs


def _findings(lines: Sequence[str]) -> list[str]:
    """The lines of an ablation on the model as it is, and on each step that is added."""
    told = [line.removeprefix("- ") for line in lines if line.startswith("- ")]
    return [re.split(r"; (?:alone|left out)", line)[0] for line in told if re.match("As it is|Step", line)]


COMMANDS: tuple[tuple[str, Callable[[Sequence[str]], list[str]]], ...] = (
    ("inspect no-ste.pt", _first),
    ("inspect no-ste.pt --data digits.npz", _first),
    ("fix no-ste.pt --retrain -o cured.pt", _first),
    ("inspect cured.pt", _first),
    ("gate cured.pt --min-perplexity 50 --min-usage 0.4", _first),
    ("ablate no-ste.pt --data digits.npz --epochs 10 --seeds 1", _findings),
)
"""The commands, and the lines of the output of each that the tour shows."""


def tour() -> str:
    """Run the commands in a folder of their own, and return them with their outputs."""
    shown = []
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "110", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("no-ste.pt", "digits.npz"):
            shutil.copy(ROOT / "sample_checkpoints" / name, folder)
        for command, lines in COMMANDS:
            call = [sys.executable, "-m", "vqdoctor", *command.split()]
            done = subprocess.run(
                call, cwd=folder, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode in (0, 1), done.stderr
            told = lines(done.stdout.splitlines())
            shown += [f"$ vqdoctor {command}", *told, f"exit code {done.returncode}", ""]
    return "\n".join(["```", *shown[:-1], "```", ""])


def written() -> str:
    """Return the tour that README.md holds."""
    return README.read_text(encoding="utf-8").partition(START)[2].partition(END)[0]


def main() -> None:
    """Write the tour into README.md."""
    text = README.read_text(encoding="utf-8")
    before, start, rest = text.partition(START)
    README.write_text(before + start + tour() + END + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    main()
