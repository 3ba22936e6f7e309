"""What a check says of hand-made evidence, in one word, and what the lines of its advice do."""

from vqdoctor.checks import all_checks
from vqdoctor.core.check import CannotJudge
from vqdoctor.core.evidence import Evidence, Usage
from vqdoctor.core.finding import Problem

CHECKS = {check.code: check for check in all_checks()}


def problems(code: str, *evidence: Evidence) -> list[Problem]:
    return CHECKS[code].judge({type(item): item for item in evidence})


def says(code: str, *evidence: Evidence) -> str:
    """The severity of the one problem, "passes", or "cannot judge"."""
    try:
        found = problems(code, *evidence)
    except CannotJudge:
        return "cannot judge"
    assert len(found) <= 1
    return found[0].severity.label if found else "passes"


def usage(k: int, n: float, perplexity: float, used: int, **more: object) -> Usage:
    """Usage of independent vectors, without an interval."""
    expected = k * (1 - (1 - 1 / k) ** n)
    values: dict[str, object] = {
        "num_codes": k, "sample_size": int(n), "used": used, "active": used, "share": used / k,
        "expected_used": expected, "expected_active": expected, "effective_size": float(n),
        "perplexity": perplexity, "perplexity_low": perplexity, "perplexity_high": perplexity,
    }  # fmt: skip
    return Usage.healthy(**{**values, **more})


def run_advice(code: str, **names: object) -> dict[str, object]:
    """Run the lines of a check's advice, or of its first remedy, on values of these names; return all."""
    import torch

    from vqdoctor.remedies import with_advice

    check = CHECKS[code]
    shown = {remedy.name: remedy.code for remedy in with_advice([check])}
    name = check.advice.name if check.advice is not None else check.remedies[0]
    scope: dict[str, object] = {"torch": torch, "F": torch.nn.functional, **names}
    exec(shown[name], scope)
    return scope
