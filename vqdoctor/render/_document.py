"""The document between a report and its formats for readers: a small tree of plain values.

It holds no style, no width and no markup, so each format only says how a node looks. Its strings may come
from the examined file as they are: the format that writes a string makes it safe.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from vqdoctor.core.frozen import frozen
from vqdoctor.core.gate import GateStatus
from vqdoctor.core.levels import Severity, Stage

Tone = Literal["plain", "good", "note", "open", "warn", "bad", "faint"]
"""How a word is meant: "open" is a question without an answer yet, "faint" can be skipped."""

CERTAIN, EXPLAINS, REMEDY = "to be certain", "It explains:", "remedy"
"""The words before a finding's deciding flag, before its symptoms, and before its remedy."""


@frozen
class Headline:
    """A decision in capitals and the sentence that explains it: "COLLAPSED", "VQ101 … on vq"."""

    word: str
    tone: Tone
    text: str


@frozen
class Item:
    """One entry of a list.

    Attributes:
        label: a word before it: a number, a status, the name of a figure.
        tone: how the label is meant.
        name: a name or a command, to be shown as it is typed.
        text: a sentence about it.
        more: entries below it.
        commands: flags or commands that help, one each.
        code: lines of code below it.
    """

    label: str = ""
    tone: Tone = "plain"
    name: str = ""
    text: str = ""
    more: tuple[Item, ...] = ()
    commands: tuple[str, ...] = ()
    code: str = ""


@frozen
class Items:
    """A list of entries."""

    items: tuple[Item, ...]


@frozen
class Assertion:
    """One assertion of a gate, as it was judged.

    Attributes:
        word: pass, fail, inconclusive, warn or known.
        tone: how the word is meant.
        about: the figure and its layer, "perplexity on vq".
        assertion: "perplexity >= 50".
        layer: the VQ layer; "" for the whole model.
        figure: the measured figure with its interval.
        reason: why it was judged so.
    """

    word: str
    tone: Tone
    about: str
    assertion: str
    layer: str
    figure: str
    reason: str


@frozen
class Compared:
    """One figure before and after a retraining, beside its goal.

    Attributes:
        name: the figure.
        before: before the retraining; "" where it was not measured.
        after: after it, likewise.
        goal: the goal; "" where there is none.
        met: whether it is met; None where there is none.
    """

    name: str
    before: str
    after: str
    goal: str = ""
    met: bool | None = None


@frozen
class Comparison:
    """The figures before and after, and where they are from."""

    rows: tuple[Compared, ...]
    source: str


@frozen
class UsageBar:
    """A codebook's codes: how many are active, used too rarely to be active, and never used.

    `counts` are quantiles of the sorted counts; empty where they are unknown.
    """

    active: float
    rare: float
    unused: float
    counts: tuple[float, ...]


@frozen
class Layer:
    """One VQ layer: its name, a line about it, a doubt, its usage by source, the best one as a bar."""

    name: str
    about: str
    doubt: str
    usages: tuple[str, ...]
    bar: UsageBar | None
    unknown: tuple[str, ...]


@frozen
class Layers:
    """The VQ layers."""

    layers: tuple[Layer, ...]


@frozen
class Measured:
    """One number of a finding: name, value, limit and the range over several layers; "" if there is none."""

    name: str
    value: str
    limit: str
    range: str


@frozen
class Block:
    """One problem on one layer, or the same problem on several.

    Attributes:
        number: its place in the order.
        severity: how bad.
        stage: the stage of the priority order.
        tag: severity, and confidence where it is not high, in words.
        code: the check's code.
        name: the check's name.
        layers: the layer or layers; "" for the whole model.
        message: one sentence; of several layers the worst one's.
        measurements: the numbers behind it, of several layers the worst one's.
        decide_with: a flag that would make it certain; "" if it is.
        remedy: the best remedy; "" for a symptom, whose root has one.
        remedy_code: the remedy's lines of code; "" if they are shown above.
        symptoms: the problems that it explains.
    """

    number: int
    severity: Severity
    stage: Stage
    tag: str
    code: str
    name: str
    layers: str
    message: str
    measurements: tuple[Measured, ...]
    decide_with: str
    remedy: str = ""
    remedy_code: str = ""
    symptoms: tuple[Block, ...] = ()


Node = Items | Comparison | Layers | Block


@frozen
class Section:
    """A title and its nodes.

    Attributes:
        title: the heading; "" for none.
        nodes: all that there is to show.
        short: the nodes that stand for a folded section; empty where it cannot be folded.
        folded: whether it is folded unless a format unfolds it by a click.
        without_code: whether a terminal leaves the code of its entries out, and says what shows it.
    """

    title: str
    nodes: tuple[Node, ...]
    short: tuple[Node, ...] = ()
    folded: bool = False
    without_code: bool = False


def items_section(title: str, items: Iterable[Item]) -> Section:
    """Return a section of one list; without entries it has no nodes, and is not shown."""
    entries = tuple(items)
    return Section(title=title, nodes=(Items(items=entries),) if entries else ())


@frozen
class Document:
    """A report, ready to be styled.

    Attributes:
        subject: the file as it was named, or "model".
        verdict: the verdict.
        decisions: the results of a gate, a fix or a retraining.
        gate: the status of the gate; None without one.
        assertions: the assertions of the gate.
        alarms: the crashed checks, each as an item.
        sections: everything else, in order.
        left: the changes that the user's source still needs; None if it needs none.
        next_step: the first thing to do; "" without a cause or a symptom.
        command: the command that explains it.
        tally: how many checks found something, passed and so on.
        version: version of the vqdoctor that wrote the report.
    """

    subject: str
    verdict: Headline
    decisions: tuple[Headline, ...]
    gate: GateStatus | None
    assertions: tuple[Assertion, ...]
    alarms: tuple[Item, ...]
    sections: tuple[Section, ...]
    left: Section | None
    next_step: str
    command: str
    tally: str
    version: str
