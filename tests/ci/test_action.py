"""GitHub's action: run as the runner runs it, it leaves annotations, a summary, outputs and SARIF."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import processes
import pytest
import yaml

import vqdoctor

ROOT = Path(vqdoctor.__file__).parents[1]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())

Step = Callable[..., Any]


def report_of(job: Any) -> dict[str, Any]:
    return json.loads(Path(job.outputs["report"]).read_text())


def test_a_healthy_checkpoint_passes(gate_step: Step) -> None:
    job = gate_step(checkpoint="healthy-256.pt", args="--min-perplexity 20")
    assert (job.code, job.outputs["exit-code"]) == (0, "0"), job.log
    assert "::error" not in job.log
    assert report_of(job)["gate"]["status"] == "pass"
    assert "gate: passed" in job.summary


def test_a_collapsed_checkpoint_fails_with_annotations_summary_report_and_sarif(gate_step: Step) -> None:
    job = gate_step(checkpoint="no-ste.pt", args="--min-perplexity 50", sarif_file="out.sarif")
    assert (job.code, job.outputs["exit-code"]) == (1, "1"), job.log
    errors = [line for line in job.log.splitlines() if line.startswith("::error ")]
    assert errors[0].startswith("::error file=no-ste.pt,title=gate failed%3A perplexity on vq::")
    assert any("title=VQ101 straight-through-missing on vq::" in line for line in errors)
    assert job.summary.startswith("**vqdoctor gate: failed**") and "VQ101" in job.summary
    assert report_of(job)["gate"]["status"] == "fail"
    (run,) = json.loads((job.workspace / "out.sarif").read_text())["runs"]
    assert {result["ruleId"] for result in run["results"]} >= {"gate/perplexity", "VQ101"}
    assert run["artifacts"][0]["location"]["uri"] == "no-ste.pt"


def test_fail_on_never_leaves_the_findings_as_annotations(gate_step: Step) -> None:
    job = gate_step(checkpoint="no-ste.pt", fail_on="never")
    assert "title=VQ101" in job.log
    assert report_of(job)["gate"]["failing"] == []


def test_too_little_evidence_is_3_and_an_annotation(gate_step: Step) -> None:
    job = gate_step(checkpoint="stalled-ema.pt", args="--min-perplexity 50", fail_on="never")
    assert (job.code, job.outputs["exit-code"]) == (3, "3"), job.log
    assert "gate is inconclusive%3A perplexity on vq" in job.log


def test_several_checkpoints_on_a_line_each(gate_step: Step) -> None:
    job = gate_step(checkpoint="healthy-256.pt\n\nno-ste.pt\n")
    assert job.code == 1
    statuses = [report["gate"]["status"] for report in report_of(job)["reports"]]
    assert statuses == ["pass", "fail"]


@pytest.mark.parametrize(
    "inputs",
    [{"checkpoint": "absent.pt"}, {"checkpoint": "no-ste.pt", "args": "--no-such-option"}],
    ids=["file", "option"],
)
def test_wrong_input_is_2_with_an_annotation_and_no_report(gate_step: Step, inputs: dict[str, str]) -> None:
    job = gate_step(**inputs)
    assert (job.code, job.outputs) == (2, {"exit-code": "2", "report": ""}), job.log
    assert job.log.splitlines()[-1].startswith("::error title=vqdoctor::error: ")
    assert "%0Ahelp: " in job.log.splitlines()[-1]


def test_an_open_quote_in_args_is_2_and_judges_nothing(gate_step: Step) -> None:
    job = gate_step(checkpoint="healthy-256.pt", args="--min-perplexity '50")
    assert (job.code, job.outputs["exit-code"]) == (2, "2")
    assert "::error title=vqdoctor::ValueError: No closing quotation" in job.log


@pytest.mark.parametrize("name", ["checkpoint", "data", "args", "fail_on", "sarif_file"])
def test_no_input_is_read_as_a_command(gate_step: Step, name: str) -> None:
    evil = "$(touch owned) `touch owned`; touch owned\ntouch owned '; touch owned; ' && touch owned #"
    job = gate_step(**{"checkpoint": "healthy-256.pt", name: evil})
    assert not list(job.workspace.rglob("owned"))
    assert (job.code == 0) is (name == "sarif_file"), "as a file's name it is as good as any"


def test_a_checkpoint_whose_name_is_an_option_is_a_checkpoint(gate_step: Step) -> None:
    job = gate_step(checkpoint="--help")
    assert job.code == 2
    assert "Usage" not in job.log


def test_what_is_logged_is_not_obeyed(gate_step: Step) -> None:
    job = gate_step(checkpoint="::set-output name=x::y ##[add-mask]z.pt")
    found = re.search(r"^::stop-commands::([0-9a-f]{32})$", job.log, re.MULTILINE)
    assert found
    quiet = job.log[found.end() : job.log.index(f"\n::{found[1]}::")]
    assert "add-mask]" in quiet and "##[" not in quiet  # the tool breaks what a runner would obey
    rest = job.log[job.log.index(f"::{found[1]}::") :].splitlines()[1:]
    assert [line[:25] for line in rest] == ["::error title=vqdoctor::er"[:25]]


def test_inputs_reach_the_scripts_through_the_environment_alone() -> None:
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step["run"]
        bash = processes.run("bash", "-n", input=step["run"])
        assert (bash.returncode, bash.stderr) == (0, "")


def test_every_input_is_used_and_every_output_is_made() -> None:
    used = {name for step in ACTION["runs"]["steps"] for name in step["env"].values()}
    assert {f"${{{{ inputs.{name} }}}}" for name in ACTION["inputs"]} <= used
    assert set(ACTION["inputs"]) == {"checkpoint", "data", "args", "version", "fail-on", "sarif-file"}
    assert set(ACTION["outputs"]) == {"exit-code", "report"}
    for name, told in ACTION["outputs"].items():
        assert told["value"] == f"${{{{ steps.gate.outputs.{name} }}}}"
