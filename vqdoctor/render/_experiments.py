"""The experiments of `--decide`: what each changed, what it showed, and what it means where none helped."""

from collections.abc import Mapping

from vqdoctor.core.evidence import Experiments
from vqdoctor.core.experiments import Effect, effects
from vqdoctor.core.levels import Severity
from vqdoctor.core.report import Report
from vqdoctor.render._document import Item, Section, Tone, items_section
from vqdoctor.render._text import count

TONES: Mapping[str, tuple[str, Tone]] = {
    "helps": ("helps", "good"), "nothing": ("no effect", "faint"), "harms": ("harms", "warn"),
}  # fmt: skip
NONE_HELPED = (
    "none of these helped: the cause is another one, or its damage outlasts so few steps; start a fresh "
    "training with one of them at a time"
)


def section(report: Report) -> Section:
    """Return the experiments, the helpful ones first; without nodes where there were none."""
    told = next((item for item in report.evidence if isinstance(item, Experiments)), None)
    if told is None:
        return items_section("", ())
    found = sorted(effects([told], told.layer), key=lambda e: (not e.helps, -e.gain if e.helps else 0.0))
    items = [_item(effect) for effect in found]
    items += [Item(label="not possible", tone="faint", text=line) for line in told.left_out]
    ill = any(f.severity > Severity.NOTE for f in report.findings)
    if ill and not any(effect.helps and effect.removal.codes for effect in found):
        items.append(Item(label="in short", tone="open", text=NONE_HELPED))
    steps = count(told.sample_size, "training step")
    return items_section(f"Experiments: {steps} each, on copies of the model", items)


def _item(effect: Effect) -> Item:
    label, tone = TONES[effect.verdict]
    return Item(label=label, tone=tone, name=effect.removal.name, text=effect.told)
