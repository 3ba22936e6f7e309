"""Writes a new check and its test from a template: `make new-check CODE=VQ509 NAME=some-name`.

What is left to fill in says TODO, and the contract tests fail until it is filled in.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from vqdoctor.checks import all_checks
from vqdoctor.core.levels import Stage
from vqdoctor.remedies import with_advice

CHECK = '''\
"""TODO: what is wrong, as one sentence.

## Why it matters
TODO

## How to read it
TODO

## Remedy
TODO: what to watch; the advice below says what to do.

## References
TODO
"""

from vqdoctor.checks._words import Problems, measured, percent, warning
from vqdoctor.core.check import Advice, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import Usage
from vqdoctor.core.levels import Confidence


class Limits(CheckLimits):
    """TODO: when it fires."""

    share: float = limit(0.5, "TODO: what it limits, and what healthy and faulty models measured.")


def evaluate(usage: Usage, limits: Limits) -> Problems:
    """TODO: the evidence is asked for by type; `usage: Usage | None` would be optional."""
    if usage.share < limits.share:
        yield warning(
            f"TODO: one sentence with the decisive number, {percent(usage.share)}.",
            measured("share", usage.share, limits.share),
            confidence=Confidence.MEDIUM,
        )


CHECK = Check(
    code="@CODE",
    name="@NAME",
    evaluate=evaluate,
    limits=Limits(),
    advice=Advice(name="TODO", how="TODO: what the user does.", code="TODO"),
    examples=(
        fires("TODO: evidence on which it must fire", Usage.healthy()),
        passes("healthy", Usage.healthy()),
    ),
    doc=__doc__,
)
'''

TEST = '''\
"""@CODE @NAME just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import says

from vqdoctor.core.evidence import Evidence, Usage


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([Usage.healthy(share=0.49)], "TODO"),
        ([Usage.healthy(share=0.51)], "passes"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("@CODE", *evidence) == expected
'''


class Refused(Exception):
    """The code or the name cannot be had; the first argument says why, the second what can."""


def new_check(root: Path, code: str, name: str) -> tuple[Path, Path]:
    """Write a check and its test into a checkout, and return where they are.

    Raises:
        Refused: if the code or the name is malformed or taken.
    """
    stages = "".join(str(int(stage)) for stage in Stage)
    if not re.fullmatch(rf"VQ[{stages}]\d\d", code):
        raise Refused(
            f"{code!r} is no code", f"VQ, the stage (one of {', '.join(stages)}), two digits: VQ509"
        )
    taken = {check.code: check.name for check in all_checks()}
    if code in taken:
        free = next(c for n in range(1, 100) if (c := f"{code[:3]}{n:02}") not in taken)
        raise Refused(f"{code} is {taken[code]}", f"the next free code of its stage is {free}")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise Refused(f"{name!r} is no name", "the problem in a few words with dashes: dead-codes")
    if name in {*taken.values(), *(remedy.name for remedy in with_advice(all_checks()))}:
        raise Refused(
            f"the name {name} is taken", "name the problem, not the remedy; `vqdoctor checks` lists all"
        )
    check = root / "vqdoctor" / "checks" / f"{code.lower()}_{name.replace('-', '_')}.py"
    test = root / "tests" / "checks" / f"test_{code.lower()}.py"
    for path, template in ((check, CHECK), (test, TEST)):
        path.write_text(template.replace("@CODE", code).replace("@NAME", name))
    return check, test


def main(arguments: list[str]) -> int:
    """Write the files; 2 where the code or the name is refused."""
    try:
        code, name = (*arguments, "", "")[:2]
        check, test = new_check(Path(__file__).parents[1], code, name)
    except Refused as refused:
        sys.stderr.write("error: {}\nhelp: {}\n".format(*refused.args))
        return 2
    sys.stderr.write(
        f"{check}\n{test}\nFill in what says TODO, until `python -m pytest tests/checks -k {code}` passes.\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
