"""An ablation as a report in Markdown, as two tables for a spreadsheet, and as lines for a terminal."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence

from vqdoctor.core.ablation import Cell, Study
from vqdoctor.core.ablation_summary import FIGURES, Carried, Change, Mean, carried, means, missed, smallest
from vqdoctor.core.codec import encode
from vqdoctor.render._text import number, printable

GROUPS = {
    "reference": "to compare with",
    "added": "one step more at a time",
    "alone": "each step alone",
    "left out": "all but one",
    "random": "as many remedies, drawn at random",
    "in its place": "another quantizer in its place",
    "stages": "each stage on and off",
}
HEAD = (
    "cell", "accuracy", "ECE", "ECE scaled", "coverage", "set size", "perplexity", "active", "by EMA counts",
    "error", "parameters", "converged", "misses",
)  # fmt: skip
STAGE_HEAD = (
    "cell", "accuracy", "perplexity", "clusters in use", "states in use", "a class lasts", "a state lasts",
    "expected duration", "truth",
)  # fmt: skip
COST_HEAD = ("cell", "training [s]", "peak memory [MiB]", "batch p50 [ms]", "batch p95 [ms]")


def ablation_json(study: Study) -> str:
    """Return the study itself, every training included."""
    return json.dumps(encode(study), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def ablation_csv(study: Study) -> str:
    """Return a line for each cell and seed, with the names of the JSON; unknown is empty."""
    rows = []
    for cell in study.cells:
        for run in study.runs:
            if run.run == cell.run:
                told = [None if run.figures is None else read(run.figures) for read in FIGURES.values()]
                rows.append([cell.group, cell.name, cell.run, run.seed, *told, run.failed])
    return _csv(["group", "cell", "run", "seed", *FIGURES, "failed"], rows)


def costs_csv(study: Study) -> str:
    """Return the time and the memory of each training, and the time of a batch of its model."""
    latencies = {latency.run: latency for latency in study.latencies}
    rows: list[list[object]] = []
    for cost in study.costs:
        latency = latencies.get(cost.run)
        times = [None] * 3 if latency is None else [latency.samples, latency.p50, latency.p95]
        rows.append([cost.run, cost.seed, cost.seconds, cost.peak_memory_mb, *times])
    names = [
        "run",
        "seed",
        "seconds",
        "peak_memory_mb",
        "samples",
        "inference_time_ms_p50",
        "inference_time_ms_p95",
    ]
    return _csv(names, rows)


def ablation_markdown(study: Study) -> str:
    """Return the report: what was found, in plain words, then the tables."""
    lines = [f"# Ablation of {printable(study.subject)}", "", *_setting(study), "", "## What was found", ""]
    lines += [f"- {printable(line)}" for line in ablation_findings(study)]
    lines += ["", "## Figures", "", *_table(HEAD, _rows(study, times=False)), ""]
    lines += [
        "Mean ± standard deviation over the seeds; in brackets the 95 % interval, mean of the seeds. "
        "Accuracy, ECE, coverage, perplexity and active codes are of the val split. The temperature and the "
        "threshold of the conformal sets (90 % coverage) are fitted on the stop split. The error is the mean "
        "squared distance of z_e to its codes, as a share of the variance of z_e.",
        "",
        "Misses: what the recipe expects of a cured codebook, and the cell does not show: perplexity 50 to "
        "200, active codes 40 to 80 % of all, accuracy at most 1.5 points below that without VQ, ECE below "
        "0.05. Over is more than the recipe expects, and does no harm. Of fewer than 250 codes it expects a "
        "perplexity of a fifth of them.",
        "",
        *_stages(study),
        "## Time and memory",
        "",
        *_table(COST_HEAD, _rows(study, times=True)),
        "",
        "These figures differ from machine to machine, and so they have a table of their own. A batch is "
        "timed in eval mode, and no other part of the study runs meanwhile.",
        "",
    ]
    lines += [f"- {printable(note)}" for note in _failures(study)]
    return "\n".join(lines).rstrip() + "\n"


def ablation_text(study: Study, width: int) -> str:
    """Return the finding and a narrow table, for a terminal."""
    plain = _without_vq(study)
    task = "accuracy" if any("accuracy" in means(study, cell) for cell in study.cells) else "task loss"
    rows = [("", task, "perplexity", "active", "misses")]
    for cell in study.cells:
        found = means(study, cell)
        rows.append(
            (
                cell.name,
                "failed" if cell.run in study.failures and not found else _mean_of_task(found),
                _mean(found.get("perplexity"), _codes),
                _mean(found.get("active"), _codes),
                ", ".join(missed(found, plain)) if _is_cure(cell, found) else "",
            )
        )
    widths = [max(len(row[at]) for row in rows) for at in range(5)]
    widths[0] = min(widths[0], max(20, width - sum(widths[1:]) - 8))
    table = [
        "  ".join(cell[:w].ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    told = [f"- {line}" for line in ablation_findings(study)]
    return "\n".join([*(printable(line) for line in (*table, "", *told)), ""])


def ablation_findings(study: Study) -> Iterator[str]:
    """Yield the findings in plain words, as far as the study is done."""
    if study.missing:
        done, of = len(study.runs), len(study.trainings)
        yield f"The study is not complete: {done} of {of} trainings are done. The same command goes on."
    elif study.interrupted:
        models = {run.run for run in study.runs if run.figures is not None}
        timed = f"{len(study.latencies)} of {len(models)} models are timed"
        yield f"The study is not complete: all trainings are done, but {timed}. The same command goes on."
    yield from study.notes
    if failures := study.failures:
        run, why = next(iter(failures.items()))
        yield f"Not trained: {', '.join(failures)}. The reason of {run}: {why}"
    plain, start = (
        _without_vq(study),
        next((c for c in study.cells if c.group == "reference" and not c.without_vq), None),
    )
    if start is not None and (found := means(study, start)):
        task = _task(found)
        majority = next((f.majority for f in study.of(start) if f.majority is not None), None)
        guess = "" if majority is None else f", where a guess reaches {_share(majority)}"
        beside = "" if plain is None else f"; without VQ {_mean(plain.get(task), _share)}"
        used = (
            f"perplexity {_mean(found.get('perplexity'), _codes)} of {_codes(found['num_codes'].value)}"
            if "num_codes" in found
            else ""
        )
        yield f"As it is: {task} {_mean(found.get(task), _share)}{guess}, {used}{beside}."
    yield from _stage_costs(study)
    steps = carried(study)
    for at, step in enumerate(steps, start=1):
        yield f"Step {at}, {step.step}: {_told(step)}."
    if steps and all(step.left_out for step in steps):
        yield from _order(steps)
    if (found_smallest := smallest(study)) is not None:
        best, small = found_smallest
        size = means(study, small)["parameters"].value
        own, highest = (_mean(means(study, cell).get("accuracy"), _share) for cell in (small, best))
        yield (
            f"The smallest model with codes that is as good as the best to 1.5 points: {small.name}, "
            f"{size:,.0f} "
            f"parameters, accuracy {own} (best: {best.name}, {highest})."
        )


def _told(step: Carried) -> str:
    """Return the part of a step, as one sentence without its full stop."""
    parts = []
    for label, changes in (("added", step.added), ("alone", step.alone), ("left out", step.left_out)):
        told = [_change(name, change) for name, change in changes.items() if change.counts]
        if changes:
            parts.append(f"{label}: {', '.join(told) if told else 'no change that counts'}")
    return "; ".join(parts) or "not done yet"


def _change(name: str, change: Change) -> str:
    write = _codes if name == "perplexity" else _share
    return f"{name} {write(change.before.value)} to {write(change.after.value)}"


def _order(steps: Sequence[Carried]) -> Iterator[str]:
    """Yield whether an earlier step costs as much as any later one when it alone is left out."""
    for figure in ("accuracy", "loss", "perplexity"):
        if not any(figure in step.left_out for step in steps):
            continue
        costs = [step.cost(figure) for step in steps]
        if not any(costs):
            yield f"By {figure} no single step is missed: leaving one out makes no difference that counts."
            continue
        ranked = sorted(range(len(steps)), key=lambda at: -costs[at])
        needed = ", ".join(steps[at].step for at in ranked if costs[at])
        wrong = [(a, b) for a in range(len(steps)) for b in range(a + 1, len(steps)) if costs[b] > costs[a]]
        if not wrong:
            yield f"By {figure} the priority order holds on this model; missed when left out: {needed}."
            continue
        a, b = max(wrong, key=lambda pair: costs[pair[1]] - costs[pair[0]])
        yield (
            f"By {figure} the priority order does not hold on this model: step {b + 1}, {steps[b].step}, is "
            f"missed more than step {a + 1}, {steps[a].step}. Missed when left out, the most first: {needed}."
        )


def _setting(study: Study) -> Iterator[str]:
    seeds = ", ".join(map(str, study.seeds))
    versions = ", ".join(f"{name} {version}" for name, version in study.versions.items())
    yield (
        f"Budget of every cell: {study.epochs} epochs from a new model, seeds {seeds}, on {study.device}, "
        f"{study.threads} thread. Weight of the VQ loss without a remedy: {study.vq_weight:g}. "
        f"{printable(versions)}."
    )


def _rows(study: Study, *, times: bool) -> Iterator[tuple[str, ...]]:
    """Yield the rows of a table, a heading before each group."""
    group, plain = "", _without_vq(study)
    for cell in study.cells:
        if cell.group != group:
            group = cell.group
            yield (f"**{GROUPS[group]}**",)
        yield _costs(study, cell) if times else _figures(study, cell, plain)


def _figures(study: Study, cell: Cell, plain: Mapping[str, Mean] | None) -> tuple[str, ...]:
    found = means(study, cell)
    task = _task(found)
    low, high = found.get(f"{task}_low"), found.get(f"{task}_high")
    interval = "" if low is None or high is None else f" [{_share(low.value)}–{_share(high.value)}]"
    with_vq = "perplexity" in found
    return (
        _shown(study, cell),
        ("" if task == "accuracy" or not found else "loss ") + _mean(found.get(task), _share) + interval,
        *(_mean(found.get(name), _share) for name in ("ece", "ece_scaled", "coverage")),
        _mean(found.get("set_size"), lambda value: f"{value:.2f}"),
        _mean(found.get("perplexity"), _codes),
        _mean(found.get("active"), _codes) + (f" of {_codes(found['num_codes'].value)}" if with_vq else ""),
        f"{_mean(found.get('ema_perplexity'), _codes)}, {_mean(found.get('ema_active'), _codes)}"
        if "ema_active" in found
        else "–",
        _mean(found.get("error"), _share),
        f"{found['parameters'].value:,.0f}" if "parameters" in found else "–",
        _mean(found.get("convergence_epoch"), _codes),
        ", ".join(missed(found, plain)) or "–" if _is_cure(cell, found) else "",
    )


def _is_cure(cell: Cell, found: Mapping[str, Mean]) -> bool:
    """Whether the recipe expects something of a cell: it has VQ, and is about the VQ layer's cure."""
    return "perplexity" in found and cell.group != "stages"


def _stages(study: Study) -> Iterator[str]:
    """Yield the table of the chain's stages; nothing where a study has none."""
    rows = []
    for cell in study.cells:
        found = means(study, cell)
        if "true_length" in found:
            counts = ("perplexity", "clusters_used", "states_used")
            lengths = ("length", "state_length", "expected_duration", "true_length")
            rows.append(
                (
                    cell.name,
                    _mean(found.get("accuracy"), _share),
                    *(_mean(found.get(name), _codes) for name in counts),
                    *(_mean(found.get(name), lambda value: f"{value:.1f}") for name in lengths),
                )
            )
    if not rows:
        return
    yield from ("## Stages", "", *_table(STAGE_HEAD, iter(rows)), "")
    yield (
        "Accuracy is the share of steps with the right label. Lengths are in steps: the mean of the runs "
        "that end within their sequence (or the sequence's own length if all go on), of the classes that "
        "the model names, of the states of the most probable segmentation, and of the labels. The interval "
        "of the accuracy above counts every step, and steps of one sequence are alike: the spread over the "
        "seeds is the better measure."
    )
    yield ""


def _stage_costs(study: Study) -> Iterator[str]:
    """Yield the cost of each stage: the chain without it, and it alone."""
    table = {
        frozenset(cell.name.split(" + ")): found["accuracy"]
        for cell in study.cells
        if cell.group == "stages" and "accuracy" in (found := means(study, cell))
    }
    names = max(table, key=len, default=frozenset())
    none = table.get(frozenset({"no stage"}))
    for stage in sorted(names, key="VQ HDP HSMM".find) if len(names) > 1 else ():
        whole, left, alone = table[names], table.get(names - {stage}), table.get(frozenset({stage}))
        if left is None or alone is None or none is None:
            continue
        doubt = "" if left.beyond(whole) else ", which the seeds do not tell apart"
        yield (
            f"{stage}: accuracy {_mean(whole, _share)} with all stages and {_mean(left, _share)} without "
            f"this one{doubt}; {_mean(alone, _share)} with it alone and {_mean(none, _share)} with none."
        )


def _costs(study: Study, cell: Cell) -> tuple[str, ...]:
    mine = [cost for cost in study.costs if cost.run == cell.run]
    latency = next((latency for latency in study.latencies if latency.run == cell.run), None)
    return (
        _shown(study, cell),
        _mean(Mean.of(cost.seconds for cost in mine), _codes),
        _mean(Mean.of(cost.peak_memory_mb for cost in mine), lambda value: f"{value:,.0f}"),
        "–" if latency is None else f"{latency.p50:.3g}",
        "–" if latency is None else f"{latency.p95:.3g}",
    )


def _failures(study: Study) -> Iterator[str]:
    for cell in study.cells:
        failed = {run.failed: run.seed for run in study.runs if run.run == cell.run and run.failed}
        for why, seed in failed.items():
            yield f"{cell.name}, seed {seed}: not trained: {why}"


def _shown(study: Study, cell: Cell) -> str:
    """Return a cell's name; one that shares the training of an earlier one says so."""
    first = next(other for other in study.cells if other.run == cell.run)
    return cell.name if first is cell else f"{cell.name} = {first.name}"


def _without_vq(study: Study) -> dict[str, Mean] | None:
    cell = next((cell for cell in study.cells if cell.without_vq), None)
    found = {} if cell is None else means(study, cell)
    return found or None


def _task(found: Mapping[str, Mean]) -> str:
    return "accuracy" if "accuracy" in found else "loss"


def _mean_of_task(found: Mapping[str, Mean]) -> str:
    return _mean(found.get("accuracy"), _share) if "accuracy" in found else _mean(found.get("loss"))


def _share(value: float) -> str:
    return f"{value:.3f}"


def _codes(value: float) -> str:
    return f"{value:,.1f}" if value < 10 and value != round(value) else f"{value:,.0f}"


def _mean(mean: Mean | None, write: Callable[[float], str] = number) -> str:
    if mean is None:
        return "–"
    return write(mean.value) if mean.spread is None else f"{write(mean.value)} ± {write(mean.spread)}"


def _table(head: Sequence[str], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + " --- |" * len(head)
    for row in rows:
        cells = [printable(cell).replace("|", "\\|") for cell in (*row, *[""] * (len(head) - len(row)))]
        yield f"| {' | '.join(cells)} |"


def _csv(names: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_safe(value) for value in row] for row in rows)
    return file.getvalue()


def _safe(value: object) -> object:
    """Return a cell that no spreadsheet takes for a formula."""
    text = printable(value) if isinstance(value, str) else value
    return f"'{text}" if isinstance(text, str) and text[:1] in ("=", "+", "-", "@") else text
