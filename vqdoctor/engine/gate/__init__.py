"""The gate: reports and assertions in, a judgement on each out. Importing it loads no torch."""

from vqdoctor.engine.gate.files import Judged, Source, expand, is_report, judge_all, load_reports
from vqdoctor.engine.gate.policy import Policy

__all__ = ["Judged", "Policy", "Source", "expand", "is_report", "judge_all", "load_reports"]
