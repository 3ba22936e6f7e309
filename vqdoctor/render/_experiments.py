"""The experiments of `--decide`: the change, the figures and the verdict of each, and a conclusion."""

from collections.abc import Mapping

from vqdoctor.core.evidence import Experiments
from vqdoctor.core.experiments import GAIN, MORE_BATCHES, REMOVALS, Effect, effects, unchanged
from vqdoctor.core.levels import Severity, Stage
from vqdoctor.core.report import Report
from vqdoctor.render._document import Item, Section, Tone, items_section
from vqdoctor.render._text import count

TONES: Mapping[str, tuple[str, Tone]] = {
    "helps": ("helps", "good"), "nothing": ("no clear effect", "faint"), "harms": ("harms", "warn"),
}  # fmt: skip
NONE_HELPED = (
    "none of these helped: the cause is another one, or its damage outlasts so few steps; begin a fresh "
    "training with one of these changes at a time"
)
NO_HARM = (
    "none of these helped, and no symptom was found: the findings above do no harm that so few steps would "
    "take away"
)
PLACED = (
    "codes that are placed where the data is lower the loss at once: the codebook is at fault, and the "
    "encoder serves as it is"
)
USED_AGAIN = (
    "codes that are placed where the data is are used, and the loss falls no further: the damage before or "
    "behind the VQ layer outlasts so few steps, or the task does as well with fewer codes"
)


def section(report: Report) -> Section:
    """Return the experiments, the helpful ones first; without nodes where there were none."""
    told = next((item for item in report.evidence if isinstance(item, Experiments)), None)
    if told is None:
        gaps = (u for u in report.unavailable if u.kind == Experiments.kind and u.hint == MORE_BATCHES)
        gap = next(gaps, None)
        items = [Item(label="not possible", tone="open", text=f"{gap.reason}; {gap.hint}")] if gap else []
        return items_section("Experiments", items)
    found = sorted(effects([told], told.layer), key=lambda e: (not e.helps, -e.gain if e.helps else 0.0))
    items = [Item(label="unchanged", tone="faint", text=unchanged(told))]
    for effect in found:
        label, tone = TONES[effect.verdict]
        shown = _shown(effect, report)
        text = f"{effect.change}: {effect.figures}{f'; {shown}' if shown else ''}"
        items.append(Item(label=label, tone=tone, name=effect.removal.name, text=text))
    items += [Item(label="not possible", tone="faint", text=line) for line in told.left_out]
    run = {*told.names, *(line.partition(":")[0] for line in told.left_out)}
    if unasked := [name for name in REMOVALS if name not in run]:
        why = "the examination left no suspect that they would take away"
        items.append(Item(label="not needed", tone="faint", text=f"{', '.join(unasked)}: {why}"))
    helping = [effect for effect in found if effect.helps and effect.removal.codes]
    if any(f.severity > Severity.NOTE for f in report.findings) and all(e.removal.treats for e in helping):
        lower = any(effect.gain >= GAIN for effect in helping)
        sick = any(f.severity > Severity.NOTE and f.stage >= Stage.USAGE for f in report.findings)
        said = PLACED if lower else USED_AGAIN if helping else NONE_HELPED if sick else NO_HARM
        items.append(Item(label="in short", tone="open", text=said))
    steps = count(told.sample_size, "training step")
    return items_section(f"Experiments: {steps} each, on copies of the model", items)


def _shown(effect: Effect, report: Report) -> str:
    """Return which findings an experiment speaks for or against; "" for none."""
    removal = effect.removal
    found = {f.code for f in report.findings if f.severity > Severity.NOTE}
    causes = [code for code in removal.codes if code in found]
    if causes:
        return f"speaks {'for' if effect.helps else 'against'} {', '.join(causes)}"
    if removal.shows and not effect.helps:
        return f"no sign of {removal.shows}"
    return ""
