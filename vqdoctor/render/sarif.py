"""SARIF 2.1.0, for code scanning: every alert is a result on its checkpoint and its layer."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from urllib.parse import quote

from vqdoctor.core.finding import Outcome
from vqdoctor.core.levels import Severity
from vqdoctor.core.report import Report
from vqdoctor.render import _phrases as phrases
from vqdoctor.render._alerts import INCOMPLETE, Alert, alerts, file_of
from vqdoctor.render._json import safe_json
from vqdoctor.render._renderer import Renderer, RenderOptions
from vqdoctor.render._text import printable

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
ROOT = "%SRCROOT%"
"""The name under which code scanning knows the root of the repository."""

HIGHEST = 100.0
"""SARIF's rank of the most important result."""


Json = dict[str, object]


def render(report: Report, options: RenderOptions) -> str:
    """Return the report as a SARIF log."""
    return several([report], options)


def several(reports: Sequence[Report], options: RenderOptions) -> str:
    """Return the reports as one SARIF log of one run: GitHub refuses two runs of one tool in a file."""
    log = _Log(options)
    for report in reports:
        log.add(report)
    return safe_json(log.value(), ascii=options.ascii)


class _Log:
    """A SARIF log in the making."""

    def __init__(self, options: RenderOptions) -> None:
        self.options = options
        self.version = ""
        self.rules: dict[str, Json] = {}
        self.artifacts: dict[str, Json] = {}
        self.results: list[Json] = []
        self.notifications: list[Json] = []
        self.seen: Counter[tuple[str, str]] = Counter()

    def value(self) -> Json:
        """Return the log as a JSON object."""
        driver = {"name": "vqdoctor", "version": self.version, "rules": list(self.rules.values())}
        crashed = any(notification["level"] == "error" for notification in self.notifications)
        invocation = {"executionSuccessful": not crashed, "toolExecutionNotifications": self.notifications}
        run = {
            "tool": {"driver": driver},
            "invocations": [invocation],
            "artifacts": list(self.artifacts.values()),
            "results": self.results,
        }
        return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}

    def add(self, report: Report) -> None:
        """Add the results of one report, and the checks that could not judge."""
        self.version = printable(report.version)
        file = file_of(report, self.options)
        self._artifact(report, file)
        for alert in alerts(report):
            self.results.append(self._result(alert, file))
        for outcome in report.outcomes:
            if outcome.status in ("skipped", "crashed"):
                self.notifications.append(self._notification(outcome, file))

    def _artifact(self, report: Report, file: str) -> None:
        gate = {"gate": report.gate.status} if report.gate else {}
        artifact: Json = {"location": _location(file), "roles": ["analysisTarget"]}
        if report.checkpoint:
            artifact["length"] = report.checkpoint.bytes
            if report.checkpoint.sha256:
                artifact["hashes"] = {"sha-256": printable(report.checkpoint.sha256)}
        self.artifacts[file] = {**artifact, "properties": {"verdict": report.verdict, **gate}}

    def _result(self, alert: Alert, file: str) -> Json:
        finding, judgement = alert.finding, alert.judgement
        exact = hashlib.sha256(alert.fingerprint.encode("utf-8", "surrogatepass")).hexdigest()
        self.seen[file, exact] += 1
        properties: Json = {}
        if finding:
            properties = {
                "confidence": finding.confidence.label,
                "stage": finding.stage.label,
                "remedies": list(finding.remedies),
                "measurements": {m.name: m.value for m in finding.measurements},
            }
            if finding.explained_by:
                properties["explainedBy"] = printable(finding.explained_by)
        if judgement:
            properties = {"status": judgement.status, "threshold": judgement.threshold}
            if judgement.value is not None:
                properties["value"] = judgement.value
        why = "It was there before, in the report that --hide-known names."
        known = {"kind": "external", "status": "accepted", "justification": why}
        return {
            "ruleId": alert.rule,
            "ruleIndex": self._rule(alert),
            "level": alert.severity.label,
            "rank": HIGHEST / finding.rank if finding and finding.rank > 0 else HIGHEST,
            "message": {"text": self._text(f"{alert.title}: {alert.message}")},
            "locations": self._locations(file, alert.layer),
            # GitHub knows this name alone; it computes the hash from source text where there is any.
            "partialFingerprints": {
                "primaryLocationLineHash": f"{exact[:16]}:{self.seen[file, exact]}",
                "vqdoctor/v1": printable(alert.fingerprint),
            },
            "suppressions": [known] if alert.hidden else [],
            "properties": properties,
        }

    def _rule(self, alert: Alert) -> int:
        """Return the index of the alert's rule, which is made at its first use."""
        if alert.rule not in self.rules:
            doc = self.options.docs.get(alert.rule, "").strip()
            name = alert.finding.name if alert.finding else alert.rule
            title = doc.partition("\n")[0] if doc else _title(alert)
            tags = ["vector-quantization", alert.finding.stage.label] if alert.finding else []
            rule: Json = {
                "id": alert.rule,
                "name": printable(name),
                "shortDescription": {"text": self._text(title)},
                "fullDescription": {"text": self._text(title)},
                "help": {"text": doc or title, "markdown": doc or title},
            }
            self.rules[alert.rule] = {**rule, **({"properties": {"tags": tags}} if tags else {})}
        return list(self.rules).index(alert.rule)

    def _notification(self, outcome: Outcome, file: str) -> Json:
        head = phrases.on(f"{outcome.code} {outcome.status}", outcome.layer)
        text = f"{head}: {outcome.reason or 'no reason given'}"
        return {
            "level": Severity.ERROR.label if outcome.status == "crashed" else Severity.NOTE.label,
            "message": {"text": self._text(text)},
            "locations": self._locations(file, outcome.layer),
        }

    def _locations(self, file: str, layer: str | None) -> list[Json]:
        """Return the file and the layer; GitHub refuses a result without a file and a line of it."""
        name = "model" if layer is None else printable(layer, ascii=self.options.ascii)
        artifact = {**_location(file), "index": list(self.artifacts).index(file)}
        logical = [{"name": name, "fullyQualifiedName": name, "kind": "module"}]
        physical = {"artifactLocation": artifact, "region": {"startLine": 1}}
        return [{"physicalLocation": physical, "logicalLocations": logical}]

    def _text(self, text: str) -> str:
        """Return a message without placeholders and links."""
        text = printable(text, ascii=self.options.ascii)
        return text.replace("{", "{{").replace("}", "}}").replace("](", "]\\(")


def _location(file: str) -> Json:
    uri = quote(file.encode("utf-8", "surrogatepass"), safe="/")
    return {"uri": f"file://{uri}"} if file.startswith("/") else {"uri": uri, "uriBaseId": ROOT}


def _title(alert: Alert) -> str:
    if alert.judgement:
        return f"The gate's assertion on {phrases.metric(alert.judgement)} does not hold."
    if alert.rule == INCOMPLETE:
        return "The examination is incomplete."
    return alert.finding.name.replace("-", " ") if alert.finding else alert.rule


RENDERER = Renderer(name="sarif", suffix=".sarif", render=render, several=several)
