"""The median and the worst of several seeds."""

from __future__ import annotations

import pytest
from gate_reports import a_finding, a_report, a_usage, no_usage

from vqdoctor.core.assertion import GateRules, parse_assertion
from vqdoctor.core.gate import Gate, Judgement
from vqdoctor.core.report import Report
from vqdoctor.engine.gate.policy import Policy
from vqdoctor.engine.gate.together import gate_together


def together(reports: list[Report], how: str, text: str, inconclusive: str | None = None) -> list[Gate]:
    told = GateRules(assertions=(parse_assertion(text, "--require"),), inconclusive=inconclusive)  # type: ignore[arg-type]
    return gate_together(reports, how, Policy(rules=told))  # type: ignore[arg-type]


def joint(gates: list[Gate]) -> Judgement:
    shared = {j for gate in gates for j in gate.judgements if j.aggregate}
    assert len(shared) == 1
    return shared.pop()


def seeds(*perplexities: float, **changes: object) -> list[Report]:
    return [a_report(a_usage(p, 2), path=f"{i}.pt", **changes) for i, p in enumerate(perplexities)]


@pytest.mark.parametrize(
    ("how", "text", "status"),
    [
        ("median", "perplexity>=100", "pass"),
        ("worst", "perplexity>=100", "fail"),
        ("worst", "perplexity>=15", "pass"),
        ("median", "perplexity>=190", "fail"),
        ("median", "perplexity>=180", "inconclusive"),
        ("worst", "perplexity<=100", "fail"),
        ("worst", "perplexity<=210", "pass"),
        ("worst", "dead<=0.3", "pass"),
    ],
)
def test_the_figure_of_all_decides(how: str, text: str, status: str) -> None:
    gates = together(seeds(180, 200, 20), how, text)
    judgement = joint(gates)
    assert judgement.status == status
    assert {gate.status for gate in gates} == {status}
    assert judgement.fingerprint.startswith(f"gate/{how}-")
    assert judgement.reason.startswith(f"the {how} of ")
    own = [j for gate in gates for j in gate.judgements if not j.aggregate]
    assert len(own) == 3 and {j.level for j in own} == {"warn"}


def test_of_an_even_number_the_two_in_the_middle_count() -> None:
    found = joint(together(seeds(100, 120, 140, 500), "median", "perplexity>=100"))
    assert (found.value, found.low, found.high) == (130, 128, 132)


def test_an_unknown_one_can_be_outvoted_but_is_never_the_best() -> None:
    unknown = a_report(unavailable=(no_usage(),))
    three = [*seeds(180, 185), unknown]
    assert joint(together(three, "median", "perplexity>=100")).status == "pass"
    assert joint(together(three, "worst", "perplexity>=100")).status == "inconclusive"
    two = [*seeds(180), unknown, unknown]
    found = joint(together(two, "median", "perplexity>=100", "pass"))
    assert (found.status, found.low) == ("inconclusive", None)
    assert joint(together([*seeds(20), unknown], "worst", "perplexity>=100")).status == "fail"


def test_a_file_without_a_layer_is_not_outvoted() -> None:
    gates = together([*seeds(180, 185), a_report(layers=())], "median", "perplexity>=100")
    assert [gate.status for gate in gates] == ["pass", "pass", "inconclusive"]


def test_under_the_median_a_finding_needs_a_majority() -> None:
    finding = {"findings": (a_finding("VQ101"),)}
    one = [*seeds(180, 185), *seeds(190, **finding)]
    two = [*seeds(180), *seeds(185, 190, **finding)]
    assert {gate.status for gate in together(one, "median", "perplexity>=100")} == {"pass"}
    assert [gate.status for gate in together(two, "median", "perplexity>=100")] == ["pass", "fail", "fail"]
    assert "fail" in {gate.status for gate in together(one, "worst", "perplexity>=100")}


def test_the_gate_of_two_infinities_is_inconclusive() -> None:
    unknown = a_report(unavailable=(no_usage(),))
    assert joint(together([unknown, unknown], "median", "perplexity>=1")).status == "inconclusive"
