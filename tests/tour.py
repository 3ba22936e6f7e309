"""The tour of docs/tour.md, from collapsed to cured and ablated: `python tests/tour.py` writes it anew.

It trains for some minutes, so `make docs` leaves it out; an acceptance test compares it.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from processes import python

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tour.md"
START, END = "<!-- tour -->\n", "<!-- /tour -->"


def _first(lines: Sequence[str]) -> list[str]:
    return [re.sub(r" in (?:\d+ min )?\d+ s$", "", lines[0])]  # the time differs


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
            done = python("-m", "vqdoctor", *command.split(), cwd=folder, env=environment)
            assert done.returncode in (0, 1), done.stderr
            told = lines(done.stdout.splitlines())
            shown += [f"$ vqdoctor {command}", *told, f"exit code {done.returncode}", ""]
    return "\n".join(["```", *shown[:-1], "```", ""])


def written() -> str:
    """Return the tour that the page holds."""
    return PAGE.read_text(encoding="utf-8").partition(START)[2].partition(END)[0]


def main() -> None:
    """Write the tour into its page."""
    text = PAGE.read_text(encoding="utf-8")
    before, start, rest = text.partition(START)
    PAGE.write_text(before + start + tour() + END + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    main()
