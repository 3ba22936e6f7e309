"""The bench's tables in Markdown, and its confusion matrix."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from fault_bench.bench import Verdict, file
from fault_bench.sample import DEVELOPMENT, HELD, HELD_OUT, HELD_OUT_DATA

NOTHING = "none"


def markdown(verdicts: Iterable[Verdict], folder: Path) -> str:
    """Return the tables of each part, and its misses with what reproduces them."""
    parts = defaultdict(list)
    for verdict in sorted(verdicts, key=lambda verdict: verdict.model.number):
        parts[verdict.model.part].append(verdict)
    text = ["# The fault bench"]
    for part in (DEVELOPMENT, HELD):
        if parts[part]:
            text += _part(part, parts[part], folder)
    return "\n".join(text) + "\n"


def _part(part: str, verdicts: list[Verdict], folder: Path) -> list[str]:
    sick = [v for v in verdicts if v.model.kinds]
    title = f"\n## {part.capitalize()}: {len(sick)} sick and {len(verdicts) - len(sick)} healthy models"
    about = f"Implementations {', '.join(sorted(HELD_OUT))}, and all others on {HELD_OUT_DATA}.\n"
    seconds = sum(sum(v.row.seconds) for v in verdicts)
    return [
        title,
        "",
        *([about] if part == HELD else []),
        *_criteria(verdicts),
        f"\nCPU seconds a model: {seconds / len(verdicts):.1f}.\n",
        "### By fault\n",
        *_by(sick, lambda v: v.model.name if len(v.model.kinds) == 1 else "pairs"),
        "\n### By implementation\n",
        *_by(sick, lambda v: v.model.setup.implementation),
        "\n### By data\n",
        *_by(sick, lambda v: v.model.setup.data),
        "\n### What was wrong\n",
        *_misses(verdicts, folder),
    ]


def _criteria(verdicts: list[Verdict]) -> list[str]:
    sick = [v for v in verdicts if v.model.kinds]
    pairs = [v for v in sick if len(v.model.kinds) > 1]
    told = [v for v in sick if v.told]
    harmful = [v for v in sick if v.harmful]
    well = [v for v in verdicts if not v.model.kinds]
    lines = (
        ("first right, live", sum(v.right_live for v in sick), len(sick), "92 %"),
        ("first right, bare, of what a file tells", sum(v.right_bare for v in told), len(told), "80 %"),
        ("both faults of a pair among the first two causes", sum(v.both for v in pairs), len(pairs), "80 %"),
        ("errors on harmful faults", sum(bool(v.row.live_errors) for v in harmful), len(harmful), "95 %"),
        ("healthy without an error, live", sum(v.right_live for v in well), len(well), "100 %"),
        ("healthy without an error, bare", sum(v.right_bare for v in well), len(well), "100 %"),
    )  # fmt: skip
    table = ["| | right | of | share | bar |", "| --- | ---: | ---: | ---: | ---: |"]
    return table + [
        f"| {name} | {right} | {of} | {right / of:.1%} | {bar} |" for name, right, of, bar in lines if of
    ]


def _by(sick: list[Verdict], group: Callable[[Verdict], str]) -> list[str]:
    groups = defaultdict(list)
    for verdict in sick:
        groups[group(verdict)].append(verdict)
    table = [
        "| | models | live | bare | harmful | with errors |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, those in sorted(groups.items()):
        told = [v for v in those if v.told]
        harmful = [v for v in those if v.harmful]
        bare = f"{sum(v.right_bare for v in told)} of {len(told)}" if told else ""
        raised = f"{sum(bool(v.row.live_errors) for v in harmful)}" if harmful else ""
        right = sum(v.right_live for v in those)
        table.append(f"| {name} | {len(those)} | {right} | {bare} | {len(harmful) or ''} | {raised} |")
    return table


def _misses(verdicts: list[Verdict], folder: Path) -> list[str]:
    """List what went wrong, the most frequent fault first."""
    missed = [v for v in verdicts if v.missed]
    often = Counter(v.model.name for v in missed)
    text = []
    for v in sorted(missed, key=lambda v: (-often[v.model.name], v.model.name, v.model.number)):
        model, row, path = v.model, v.row, file(v.model, folder)
        setup = model.setup
        wanted = " and ".join("/".join(sorted(kind.codes)) for kind in model.kinds)
        text += [
            f"- **{model.number} {model.name}** → {wanted or 'no error'}; {setup.implementation}, "
            f"{setup.data}, K {setup.codes}; {_figures(v)}",
            *(
                f"  - {how} {'right' if right else 'WRONG' if judged else 'not told'}: {_shown(roots)}"
                for how, right, judged, roots in (
                    ("live", v.right_live and v.both, True, row.live),
                    ("bare", v.right_bare, v.told or not model.kinds, row.bare),
                )
            ),
            *(["  - no error, though it does harm"] if v.harmful and not row.live_errors else []),
            *([f"  - crashed: `{row.crash.strip().splitlines()[-1]}`"] if row.crash else []),
            f"  - `vqdoctor inspect {path}`; `vqdoctor inspect {path} --task {path.with_suffix('.py')}:task`",
        ]
    return text or ["Nothing."]


def _figures(verdict: Verdict) -> str:
    row, name = verdict.row, "accuracy" if verdict.model.labelled else "error"
    usage = " ".join("?" if p is None else f"{p:.0f}" for p in row.perplexity)
    return f"{name} {row.figure:.3f} (twin {row.twin:.3f}), perplexity {usage}"


def _shown(roots: Iterable[tuple[str, str, str]]) -> str:
    return ", ".join(f"{code} {severity}" for code, severity, _ in list(roots)[:4]) or NOTHING


def picture(verdicts: Iterable[Verdict], path: Path) -> None:
    """Draw which first finding each fault got, live; pairs are left out."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    cells: Counter[tuple[str, str]] = Counter()
    for v in verdicts:
        if len(v.model.kinds) < 2:
            (kind,) = v.model.kinds or (None,)
            # a finding that names the fault by another accepted code stands on the diagonal
            first = v.row.live[0][0] if v.row.live else NOTHING
            wanted = NOTHING if kind is None else kind.fault.code
            cells[wanted, wanted if kind is not None and v.right_live else first] += 1
    rows = sorted({row for row, _ in cells})
    columns = sorted({column for _, column in cells} | set(rows))
    figure, axes = plt.subplots(figsize=(2 + 0.32 * len(columns), 2 + 0.3 * len(rows)))
    shares = [[cells[r, c] / sum(cells[r, other] for other in columns) for c in columns] for r in rows]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), count in cells.items():
        x, y = columns.index(column), rows.index(row)
        axes.text(
            x,
            y,
            str(count),
            ha="center",
            va="center",
            fontsize=7,
            color="white" if shares[y][x] > 0.5 else "black",
        )
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=7)
    axes.set_yticks(range(len(rows)), rows, fontsize=7)
    axes.set_xlabel("first finding")
    axes.set_ylabel("fault")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
