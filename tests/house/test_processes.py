"""A test that starts a process does it in the one way that waits long enough."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
OWN = re.compile(r"(?<![\"'])\b(subprocess\.(run|Popen|call|check_\w+|getoutput)|os\.(system|popen))\(")


def test_every_process_is_started_in_one_way() -> None:
    for path in TESTS.rglob("*.py"):
        if path != Path(__file__) and path.name != "processes.py":
            lines = path.read_text(encoding="utf-8").splitlines()
            assert [line for line in lines if OWN.search(line)] == [], f"{path}: take processes.run or python"
    assert OWN.search("done = subprocess.run(command)") and not OWN.search('"subprocess.Popen",')
