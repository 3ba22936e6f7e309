"""An ablation as plain values: the same model trained with and without VQ, and with each remedy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Literal

from vqdoctor.core.frozen import frozen

SCHEMA = 1
KIND = "vqdoctor-ablation"
"""The field "kind" of every such JSON."""

Group = Literal["reference", "added", "alone", "left out", "random", "in its place", "stages"]
"""The question that a cell answers: the models to compare with; the steps of the plan, one more at a time;
each step alone; all but one; a random choice of remedies; another quantizer in the place of the VQ layer; the
stages of the chain, each on or off."""


@frozen
class Cell:
    """One named configuration of a model, with its training plan.

    Attributes:
        name: as the table shows it.
        group: the question that it answers.
        run: name of the training that it stands on; cells with the same training share one.
        model: the model that is trained: "as it is", or another one that the subject offers.
        remedies: the remedies of its training plan.
        without_vq: whether the VQ layers are bypassed.
    """

    name: str
    group: Group
    run: str
    model: str = "as it is"
    remedies: tuple[str, ...] = ()
    without_vq: bool = False


@frozen
class CodebookFigures:
    """The usage of one layer on the val split, and by its EMA counts.

    Attributes:
        num_codes: K.
        perplexity: on the data, Grassberger's estimate, in codes.
        active: codes above 0.1/K of the usage on the data.
        expected_active: codes that even usage would show as active on as much data.
        error: mean squared distance of z_e to its codes, as a share of the variance of z_e; None if unseen.
        ema_perplexity: by the EMA counts; None without any.
        ema_active: likewise.
    """

    num_codes: int
    perplexity: float
    active: int
    expected_active: float
    error: float | None = None
    ema_perplexity: float | None = None
    ema_active: int | None = None


@frozen
class StageFigures:
    """The sequences of the val split as the stages of the chain see them. Lengths are in steps.

    A length is the mean of the runs that end within their sequence, or the sequence's own if all go on.

    Attributes:
        true_length: of the runs of one label.
        length: of the runs of one class that the model names.
        clusters_used: clusters that are the likeliest ones of enough steps; None without the HDP stage.
        states_used: hidden states of the most probable segmentations, likewise; None without the HSMM stage.
        state_length: of the runs of one state there.
        expected_duration: by the duration model, mean over these states.
    """

    true_length: float
    length: float
    clusters_used: int | None = None
    states_used: int | None = None
    state_length: float | None = None
    expected_duration: float | None = None


@frozen
class AblationFigures:
    """The figures of one trained model. All but `parameters` are of the val split.

    Attributes:
        loss: mean task loss.
        loss_low: lower end of its 95 % interval, from how much batches differ; None with one batch.
        loss_high: upper end of its 95 % interval.
        samples: samples of the split.
        accuracy: share of right labels; None where the task has no labels, as all down to `set_size`.
        accuracy_low: lower end of its 95 % interval.
        accuracy_high: upper end of its 95 % interval.
        majority: share of the most frequent label: the accuracy of a guess.
        ece: expected calibration error.
        ece_scaled: likewise, after temperature scaling.
        temperature: the temperature, fitted on the stop split.
        coverage: share of the samples whose conformal set holds the right label, where 90 % are promised; the
            threshold comes from the stop split.
        set_size: mean number of labels in such a set.
        parameters: trained numbers of the model, with the codes of its codebooks; without VQ less these.
        convergence_epoch: the first epoch that is as good as the best, to a point of accuracy or to 5 % of
            the fall of the task loss, on the stop split; None without one.
        layers: layer to its usage; empty without VQ.
        stages: the stages of the chain; None for other models.
    """

    loss: float
    loss_low: float | None = None
    loss_high: float | None = None
    samples: int
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    majority: float | None = None
    ece: float | None = None
    ece_scaled: float | None = None
    temperature: float | None = None
    coverage: float | None = None
    set_size: float | None = None
    parameters: int
    convergence_epoch: int | None = None
    layers: Mapping[str, CodebookFigures] = field(default_factory=dict)
    stages: StageFigures | None = None


@frozen
class Run:
    """One training: a cell's configuration with one seed.

    Attributes:
        run: name of the training, as cells name it.
        seed: its seed.
        figures: its figures; None where it failed.
        failed: why; "" where it did not.
    """

    run: str
    seed: int
    figures: AblationFigures | None = None
    failed: str = ""


@frozen
class Cost:
    """The price of one training, apart from its figures: it differs from machine to machine and day to day.

    Attributes:
        run: name of the training.
        seed: its seed.
        seconds: how long it took.
        peak_memory_mb: most memory in use meanwhile, in MiB: of the GPU, or of the whole process.
    """

    run: str
    seed: int
    seconds: float
    peak_memory_mb: float | None = None


@frozen
class Latency:
    """How long the model of a training takes for one batch, measured alone.

    Attributes:
        run: name of the training.
        samples: samples of the batch.
        p50: median, in milliseconds.
        p95: 95th percentile, in milliseconds.
    """

    run: str
    samples: int
    p50: float
    p95: float


@frozen
class Study:
    """An ablation: its trainings and their figures.

    Attributes:
        kind: what this JSON is.
        schema: its version.
        versions: version of vqdoctor, torch, numpy and Python.
        subject: the model and its data, in words.
        identity: fingerprint of all that decides about the figures.
        epochs: epochs of every training: the budget.
        seeds: the seeds of every cell.
        threads: threads of every training on the CPU.
        device: where the models were trained.
        vq_weight: weight of the VQ loss without a remedy.
        cells: the configurations, in the order of the table.
        runs: the trainings that are done.
        interrupted: whether it was ended before its time.
        costs: time and memory of each training.
        latencies: time of a batch for each model.
        notes: what could not be done, one line each.
    """

    kind: str = KIND
    schema: int = SCHEMA
    versions: Mapping[str, str]
    subject: str
    identity: str
    epochs: int
    seeds: tuple[int, ...]
    threads: int
    device: str
    vq_weight: float
    cells: tuple[Cell, ...]
    runs: tuple[Run, ...] = ()
    interrupted: bool = False
    costs: tuple[Cost, ...] = ()
    latencies: tuple[Latency, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def trainings(self) -> tuple[tuple[str, int], ...]:
        """Every training of the study, as its name and its seed, in the order in which they are done."""
        names = dict.fromkeys(cell.run for cell in self.cells)
        return tuple((name, seed) for seed in self.seeds for name in names)

    @property
    def missing(self) -> int:
        """How many trainings are left."""
        return len(self.trainings) - len(self.runs)

    @property
    def failures(self) -> Mapping[str, str]:
        """The trainings that failed, each with its first reason."""
        return {run.run: run.failed for run in reversed(self.runs) if run.failed}

    @property
    def is_complete(self) -> bool:
        """Whether every training is done, and the model as it is was trained."""
        start = next((c for c in self.cells if c.group == "reference" and not c.without_vq), None)
        return not self.missing and not self.interrupted and (start is None or bool(self.of(start)))

    def of(self, cell: Cell) -> tuple[AblationFigures, ...]:
        """Return the figures of a cell, one for each seed that is done."""
        return tuple(run.figures for run in self.runs if run.run == cell.run and run.figures is not None)
