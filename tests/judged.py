"""What a check says of hand-made evidence, in one word."""

from vqdoctor.checks import all_checks
from vqdoctor.core.check import CannotJudge
from vqdoctor.core.evidence import Evidence
from vqdoctor.core.finding import Problem

CHECKS = {check.code: check for check in all_checks()}


def problems(code: str, *evidence: Evidence) -> list[Problem]:
    return CHECKS[code].judge({type(item): item for item in evidence})


def says(code: str, *evidence: Evidence) -> str:
    try:
        found = problems(code, *evidence)
    except CannotJudge:
        return "cannot judge"
    assert len(found) <= 1
    return found[0].severity.label if found else "passes"
