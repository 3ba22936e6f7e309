"""A threshold is held against an interval; what nothing tells never passes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from gate_reports import METRICS, a_crash, a_finding, a_report, a_usage, no_usage, of_ema

from vqdoctor.core.assertion import GateRules, parse_assertion
from vqdoctor.core.errors import UserError
from vqdoctor.core.gate import Gate
from vqdoctor.core.levels import Severity
from vqdoctor.core.report import Report
from vqdoctor.engine.gate.policy import Policy, decide, hold, require_known_layers
from vqdoctor.probes._usage import usage_from_indices


def rules(*texts: str, **others: object) -> GateRules:
    return GateRules(assertions=tuple(parse_assertion(t, "--require") for t in texts), **others)  # type: ignore[arg-type]


def gate(report: Report, *texts: str, **policy: object) -> Gate:
    settings = {"rules": rules(*texts), **policy}
    return decide(report, hold(report, Policy(**settings)), Policy(**settings))  # type: ignore[arg-type]


def straddling(how: str | None) -> GateRules:
    return rules("perplexity>=178", inconclusive=how)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("perplexity>=175", "pass"),
        ("perplexity>=176", "inconclusive"),
        ("perplexity>=184", "inconclusive"),
        ("perplexity>=185.1", "fail"),
        ("perplexity<=186", "pass"),
        ("perplexity<=180", "inconclusive"),
        ("perplexity<=174", "fail"),
        ("perplexity>=0.5K", "pass"),
        ("perplexity>=0.8K", "fail"),
        ("accuracy>=0.9", "pass"),
        ("accuracy>=0.94", "inconclusive"),
        ("accuracy>=0.99", "fail"),
        ("ece<=0.05", "pass"),
        ("ece<=0.03", "inconclusive"),
        ("ece<=0.005", "fail"),
    ],
)
def test_an_interval_is_compared_not_a_point(text: str, status: str) -> None:
    found = gate(a_report(a_usage(180, 5), METRICS), text)
    assert found.status == status
    (judgement,) = found.judgements
    assert judgement.status == status
    assert judgement.low <= judgement.value <= judgement.high  # type: ignore[operator]


def test_the_reason_says_figure_origin_threshold_and_what_it_takes() -> None:
    (judgement,) = gate(a_report(a_usage(180, 5)), "perplexity>=178").judgements
    assert judgement.reason == (
        "180 [175–185] from 16,384 vectors of 1,024 samples, against at least 178; "
        "too close to tell; about 6 more batches like this one would do"
    )
    (judgement,) = gate(a_report(a_usage(180, 5)), "perplexity>=180").judgements
    assert "too close to tell on any amount of data" in judgement.reason
    (judgement,) = gate(a_report(of_ema(180, 1)), "perplexity>=181").judgements
    assert "EMA counts over ~200 batches" in judgement.reason and "--data BATCH" in judgement.reason


@pytest.mark.parametrize(("how", "status"), [(None, "inconclusive"), ("pass", "pass"), ("fail", "fail")])
def test_an_undecided_interval_counts_as_told(how: str | None, status: str) -> None:
    found = gate(a_report(a_usage(180, 5)), rules=straddling(how))
    assert found.status == status
    assert ("undecided" in found.judgements[0].reason) == (how is not None)


@pytest.mark.parametrize("how", [None, "pass", "fail"])
@pytest.mark.parametrize("perplexity", [30.0, 178.0, 250.0])
def test_fewer_independent_vectors_than_codes_is_inconclusive_whatever_is_told(
    how: str | None, perplexity: float
) -> None:
    few = a_usage(perplexity, 0.1, sample_size=2048, groups=8, effective_size=200.0)
    found = gate(a_report(few), rules=straddling(how))
    assert found.status == "inconclusive"
    assert found.judgements[0].reason.endswith(
        "200 independent vectors are too few for 256 codes; "
        "about 20 more batches like this one make 16 per code"
    )
    assert gate(a_report(few.replace(effective_size=256.0)), rules=rules("perplexity>=20")).status == "pass"


@pytest.mark.parametrize(("samples", "says"), [(1, "1 sample does not"), (3, "3 samples do not")])
def test_few_samples_say_nothing_of_others(samples: int, says: str) -> None:
    found = gate(a_report(a_usage(180, 5, groups=samples)), "perplexity>=20")
    assert found.status == "inconclusive" and says in found.judgements[0].reason
    assert gate(a_report(a_usage(180, 5, groups=4)), "perplexity>=20").status == "pass"
    assert gate(a_report(a_usage(180, 5, groups=None)), "perplexity>=20").status == "pass"


def test_one_image_twice_is_not_taken_for_independent_vectors() -> None:
    image = np.random.default_rng(0).integers(0, 40, 1024)
    usage = usage_from_indices(np.tile(image, 2), 256, layer="vq", groups=np.repeat([0, 1], 1024))
    assert usage.effective_size == 2048 and usage.perplexity_high < 50
    assert gate(a_report(usage), "perplexity>=50").status == "inconclusive"


@pytest.mark.parametrize("how", [None, "pass", "fail"])
def test_what_nothing_tells_is_inconclusive_with_the_reason(how: str | None) -> None:
    found = gate(a_report(unavailable=(no_usage(),)), rules=straddling(how))
    (judgement,) = found.judgements
    assert (found.status, judgement.value) == ("inconclusive", None)
    assert "EMA counts not converged" in judgement.reason and "--data BATCH" in judgement.reason
    unlabelled = dataclasses.replace(METRICS, accuracy=None, ece=None)
    assert (
        gate(a_report(unlabelled), "accuracy>=0").judgements[0].reason.startswith("the batch has no labels")
    )
    assert gate(a_report(), "ece<=1").status == "inconclusive"


@pytest.mark.parametrize("how", [None, "pass"])
@pytest.mark.parametrize("bar", [None, Severity.ERROR])
@pytest.mark.parametrize("texts", [(), ("accuracy>=0",), ("perplexity>=0",)])
def test_neither_a_file_without_a_vq_layer_nor_a_crash_ever_passes(
    texts: tuple[str, ...], bar: Severity | None, how: str | None
) -> None:
    policy = {"rules": rules(*texts, inconclusive=how), "bar": bar}
    empty = a_report(METRICS, layers=())
    crashed = a_report(a_usage(), METRICS, outcomes=(a_crash(),))
    for report, metric in ((empty, "layers"), (crashed, "crashed")):
        known = {"known": (dataclasses.replace(report, gate=gate(report, **policy)),)}
        for more in ({}, known):
            found = gate(report, **policy, **more)
            assert found.status == "inconclusive"
            assert metric in [j.metric for j in found.judgements]


def test_a_file_without_a_layer_asks_for_the_model_and_a_run_without_one_does_not() -> None:
    reasons = [
        gate(a_report(*seen, layers=()), rules=rules()).judgements[0].reason for seen in ((), (METRICS,))
    ]
    assert "--task" in reasons[0] and "FSQ" in reasons[0]
    assert "--task" not in reasons[1] and "--codebook-key" in reasons[1]


def test_without_assertions_no_codebook_may_have_collapsed() -> None:
    assert gate(a_report(a_usage(60, 5))).status == "pass"
    assert gate(a_report(a_usage(52, 5))).status == "inconclusive"
    found = gate(a_report(a_usage(40, 5)))
    assert found.status == "fail" and found.judgements[0].threshold == 50
    moved = {"limits": {"VQ501": {"codes": 30.0}}}
    assert gate(a_report(a_usage(40, 5)), **moved).status == "pass"


def test_every_layer_is_held_and_one_can_be_named() -> None:
    report = a_report(a_usage(180, 5, layer="rvq.0"), a_usage(30, 5, layer="rvq.1"))
    statuses = {j.layer: j.status for j in gate(report, "perplexity>=50").judgements}
    assert statuses == {"rvq.0": "pass", "rvq.1": "fail"}
    assert gate(report, "perplexity>=50@rvq.0").status == "pass"
    assert [j.layer for j in gate(report, "perplexity>=10@rvq.*").judgements] == ["rvq.0", "rvq.1"]


def test_a_layer_that_is_not_there_is_the_users_error() -> None:
    told = rules("perplexity>=50@rvq.2")
    with pytest.raises(UserError, match=r"a\.pt: there is no VQ layer rvq\.2: did you mean rvq\.0\?"):
        require_known_layers(told, [a_report(a_usage(layer="rvq.0"))])
    require_known_layers(told, [a_report(layers=())])  # inconclusive instead


def test_a_warning_says_so_and_fails_nothing() -> None:
    (assertion,) = rules("perplexity>=200").assertions
    warn = GateRules(assertions=(dataclasses.replace(assertion, level="warn"),))
    found = gate(a_report(a_usage(180, 5)), rules=warn)
    assert (found.status, found.judgements[0].status, found.judgements[0].level) == ("pass", "fail", "warn")


def test_the_best_source_is_held_and_a_batch_outranks_the_file() -> None:
    both = a_report(of_ema(30, 1), a_usage(180, 5))
    (judgement,) = gate(both, "perplexity>=100").judgements
    assert judgement.status == "pass" and "vectors of" in judgement.reason


def test_findings_at_the_bar_fail_and_others_do_not() -> None:
    report = a_report(a_usage(), findings=(a_finding("VQ101"), a_finding("VQ401", severity=Severity.WARNING)))
    found = gate(report, "perplexity>=50")
    assert (found.status, found.failing) == ("fail", ("VQ101:vq",))
    assert gate(report, "perplexity>=50", bar=Severity.WARNING).failing == ("VQ101:vq", "VQ401:vq")
    assert gate(report, "perplexity>=50", bar=None).status == "pass"


@pytest.mark.parametrize(
    ("code", "layer", "text"),
    [("VQ501", "vq", "perplexity>=20"), ("VQ502", "vq", "dead<=1"), ("VQ603", None, "ece<=0.9")],
)
def test_an_assertion_takes_the_place_of_the_checks_own_limit(code: str, layer: str, text: str) -> None:
    report = a_report(a_usage(), METRICS, findings=(a_finding(code, layer),))
    assert gate(report, text).status == "pass"
    assert gate(report, "accuracy>=0").failing == (f"{code}:{layer or ''}",)
    (assertion,) = rules(text).assertions
    warn = GateRules(assertions=(dataclasses.replace(assertion, level="warn"),))
    assert gate(report, rules=warn).status == "fail"


def test_a_finding_that_says_why_nothing_is_known_proves_no_failure() -> None:
    findings = (a_finding("VQ302"), a_finding("VQ401", explained_by="VQ302:vq"))
    unknown = a_report(unavailable=(no_usage(),), findings=findings)
    assert gate(unknown).status == gate(unknown, "perplexity>=50").status == "inconclusive"
    assert gate(a_report(of_ema(), findings=findings)).failing == ("VQ302:vq", "VQ401:vq")
    assert gate(a_report(METRICS, findings=findings), "accuracy>=0.9").failing == ("VQ302:vq", "VQ401:vq")


def test_what_was_there_before_is_silenced_and_nothing_else() -> None:
    before = a_report(a_usage(20, 1), findings=(a_finding("VQ101"), a_finding("VQ501")))
    now = dataclasses.replace(before, findings=(*before.findings, a_finding("VQ902", None)))
    found = gate(now, known=(before,))
    assert (found.status, found.failing) == ("fail", ("VQ902:",))
    assert set(found.hidden) == {"VQ101:vq", "VQ501:vq", "gate/perplexity:vq"}
    assert gate(before, known=(before,)).status == "pass"
    # a limit that the user states is silenced only where it failed before
    assert gate(before, "perplexity>=50", known=(before,)).status == "fail"
    failed = dataclasses.replace(before, gate=gate(before, "perplexity>=50"))
    assert gate(before, "perplexity>=50", known=(failed,)).status == "pass"


def test_of_several_known_reports_the_one_of_the_same_file_counts() -> None:
    sick = {"findings": (a_finding("VQ101"),)}
    known = (a_report(a_usage(), path="runs/a.pt", **sick), a_report(a_usage(), path="runs/b.pt"))
    assert gate(a_report(a_usage(), path="runs/a.pt", **sick), known=known).status == "pass"
    assert gate(a_report(a_usage(), path="new/a.pt", **sick), known=known).status == "pass"
    assert gate(a_report(a_usage(), path="runs/b.pt", **sick), known=known).status == "fail"


@pytest.mark.parametrize(
    ("new", "drop", "status"),
    [
        (180, 0.1, "pass"),
        (155, 0.1, "fail"),
        (164, 0.1, "inconclusive"),
        (155, 0.2, "pass"),
        (250, 0, "pass"),
    ],
)
def test_a_drop_is_compared_within_the_uncertainty_of_both(new: float, drop: float, status: str) -> None:
    baseline = a_report(a_usage(180, 5))
    found = gate(a_report(a_usage(new, 5)), rules=GateRules(max_drop=drop), baseline=(baseline,))
    judgement = found.judgements[0]
    assert (judgement.metric, judgement.status, judgement.baseline) == ("perplexity", status, 180)
    assert judgement.threshold == pytest.approx(180 * (1 - drop))
    assert judgement.high - judgement.low > 10  # type: ignore[operator]


def test_the_ends_of_the_baselines_interval_widen_the_side_that_they_make_doubtful() -> None:
    """A baseline that may have been higher makes the drop worse, so it lowers the low end; and so on.

    By hand, after Zou and Donner 2008: new - 0.9 old lies 18 - hypot(5, 0.9 * 20) to 18 + hypot(3, 0.9 * 2).
    """
    baseline = a_report(a_usage(180, perplexity_low=178.0, perplexity_high=200.0))
    now = a_report(a_usage(180, perplexity_low=175.0, perplexity_high=183.0))
    judgement = gate(now, rules=GateRules(max_drop=0.1), baseline=(baseline,)).judgements[0]
    assert judgement.low == pytest.approx(180 - (5**2 + 18**2) ** 0.5)
    assert judgement.high == pytest.approx(180 + (3**2 + 1.8**2) ** 0.5)


def test_a_drop_compares_like_with_like() -> None:
    bare, full = a_report(of_ema(180, 1)), a_report(of_ema(170, 1), a_usage(60, 5))
    (perplexity, usage) = gate(full, baseline=(bare,)).judgements
    assert (perplexity.value, perplexity.status, usage.metric) == (170, "pass", "usage")
    found = gate(a_report(a_usage(180, 5)), baseline=(bare,))
    assert found.status == "inconclusive" and "nothing to compare" in found.judgements[0].reason


def test_a_baseline_with_other_layers_or_other_files_is_inconclusive() -> None:
    gone = gate(a_report(a_usage(layer="new")), baseline=(a_report(a_usage(layer="old")),))
    assert gone.status == "inconclusive"
    # what is new cannot be compared: it may not have collapsed
    assert [(j.layer, j.status) for j in gone.judgements] == [("new", "pass"), ("old", "inconclusive")]
    others = (a_report(a_usage(), path="x.pt"), a_report(a_usage(), path="y.pt"))
    assert gate(a_report(a_usage()), baseline=others).status == "inconclusive"
    assert gate(a_report(a_usage(), path="y.pt"), baseline=others).status == "pass"


def test_accuracy_is_compared_with_the_baseline_too() -> None:
    worse = dataclasses.replace(METRICS, accuracy=0.70)
    found = gate(a_report(a_usage(), worse), baseline=(a_report(a_usage(), METRICS),))
    assert [j.metric for j in found.judgements if j.status == "fail"] == ["accuracy"]


@pytest.mark.parametrize("text", ["perplexity<=1000", "usage<=1", "dead>=0"])
def test_an_end_on_the_other_side_takes_no_checks_place(text: str) -> None:
    report = a_report(a_usage(), findings=(a_finding("VQ501"), a_finding("VQ502")))
    assert gate(report, text).failing == ("VQ501:vq", "VQ502:vq")


@pytest.mark.parametrize("bar", [None, Severity.ERROR])
def test_where_only_warnings_are_asserted_no_codebook_may_have_collapsed(bar: Severity | None) -> None:
    (assertion,) = rules("usage>=0.4").assertions
    warn = {"rules": GateRules(assertions=(dataclasses.replace(assertion, level="warn"),)), "bar": bar}
    assert gate(a_report(a_usage(40, 5)), **warn).status == "fail"
    unknown = a_report(unavailable=(no_usage(),), findings=(a_finding("VQ302"),))
    assert gate(unknown, **warn).status == "inconclusive"
    assert gate(a_report(a_usage(180, 5)), **warn).status == "pass"


def test_a_threshold_out_of_reach_says_so() -> None:
    (judgement,) = gate(a_report(a_usage(180, 5)), "perplexity>=300").judgements
    assert judgement.status == "fail" and judgement.reason.endswith("; 256 codes can never reach it")


def failed_at(threshold: float, perplexity: float, *findings: str) -> Report:
    report = a_report(a_usage(perplexity, 5), findings=tuple(map(a_finding, findings)))
    return dataclasses.replace(report, gate=gate(report, f"perplexity>={threshold}"))


def test_a_known_failure_hides_no_other_threshold_of_the_same_metric() -> None:
    now = a_report(a_usage(30, 5))
    assert gate(now, "perplexity>=50", known=(failed_at(200, 180),)).status == "fail"
    assert gate(now, "perplexity>=50", known=(failed_at(200, 20),)).status == "pass"
    assert gate(now, "perplexity>=220", known=(failed_at(200, 180),)).status == "pass"
    both = gate(now, "perplexity>=50", "perplexity>=200", known=(failed_at(200, 180),))
    assert (both.status, both.hidden) == ("fail", ())


def test_a_silenced_threshold_does_not_stand_in_for_the_check_of_the_collapse() -> None:
    known = failed_at(230, 180)
    now = a_report(a_usage(1, 0.1), findings=(a_finding("VQ501"),))
    found = gate(now, "perplexity>=230", known=(known,))
    assert (found.hidden, found.failing) == (("gate/perplexity:vq",), ("VQ501:vq",))
    assert gate(now, "perplexity>=230", known=(failed_at(230, 1, "VQ501"),)).status == "pass"


def test_a_known_warning_that_became_an_error_is_not_known() -> None:
    warned = a_report(a_usage(), findings=(a_finding("VQ501", severity=Severity.WARNING),))
    now = a_report(a_usage(20, 1), findings=(a_finding("VQ501"),))
    found = gate(now, known=(warned,))
    assert (found.status, found.hidden, found.failing) == ("fail", (), ("VQ501:vq",))


@pytest.mark.parametrize("bar", [None, Severity.ERROR])
def test_a_baseline_that_compares_nothing_passes_nothing(bar: Severity | None) -> None:
    empty = gate(a_report(a_usage(180, 5)), baseline=(a_report(layers=()),), bar=bar)
    assert empty.status == "inconclusive"
    assert any("the baseline has no VQ layer" in j.reason for j in empty.judgements)
    both = a_report(a_usage(180, 5, layer="old"), a_usage(1, 0.1, layer="new"))
    found = gate(both, baseline=(a_report(a_usage(180, 5, layer="old")),), bar=bar)
    assert [j.layer for j in found.judgements if j.status == "fail"] == ["new"]


def test_the_interval_of_a_drop_is_no_impossible_figure_and_says_whose_doubt_it_has() -> None:
    (judgement, *_) = gate(a_report(a_usage(1, 0.1)), baseline=(a_report(a_usage(180, 5)),)).judgements
    assert judgement.low == 0 and judgement.status == "fail"
    assert "1,024 samples, with the baseline's uncertainty, against at least 162" in judgement.reason
