"""The codebook was never initialised, or never trained.

## Why it matters
Codes that are all one and the same give every vector the index 0. A layer whose data initialisation
is still to come overwrites the content of its codebook at the next forward pass; some libraries
do that in eval mode too, so that an evaluation seems to find a working codebook in a file that has
none. The usage of a file that was saved before the first step is meaningless: it is not a collapse.

## How to read it
Five signs. All rows are equal, or zero. The stored flag (`initted`, `inited`) says that the initialisation
is still to come; the flag "done" is not a proof, since it is also set where no data initialisation was
asked for. The optimizer in the file never took a step, or the file records zero updates; both together are
proof enough for an EMA, even of codes that were placed in the data. Or the EMA counts were never written,
though a train-mode forward pass writes them. Or all rows are as a known constructor draws them, U(±1/K) for
one, where no optimizer says otherwise. For the last ones the codebook must look like random noise as well:
the squared correlations between its dimensions exceed those of independent numbers by no more than chance
allows (random starts measured -3 to 4 standard deviations, trained codebooks 460 and more). Tables that are
frozen on purpose are left out, and levels that were never reached while others were trained (VQ506).

Counts that were never written, in a file that records a training, are those of a copy that got the trained
parameters and none of the buffers: averages of the weights that are written by hand often leave them out.

## Remedy
A codebook that was never trained has nothing to repair. Either the wrong file was given (saved at step
0, or a model built anew without its weights), or the weights did not load: compare the names of the
file's tensors with the model's. A layer that initialises itself from data has to see a batch in train
mode before it is saved. A copy with averaged weights needs the model's buffers as well: the codes, and the
EMA's counts and sums.

## References
- lucidrains/vector-quantize-pytorch#102: a codebook of zeros in eval mode and after loading
"""

from vqdoctor.checks._overwritten import has_live_means
from vqdoctor.checks._words import Problems, error, figure, measured
from vqdoctor.core.check import Advice, CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import EmaState, Initialisation, LevelUse, StartRows, TrainForward
from vqdoctor.core.levels import Confidence

COPY_BUFFERS = "copy-buffers"


class Limits(CheckLimits):
    """When the codebook counts as untouched."""

    identical: float = limit(
        1.0,
        "Share of the rows that are bitwise equal from which the codebook counts as never initialised. "
        "Training never makes all rows equal: even a single step moves only those that are chosen.",
    )
    structure: float = limit(
        6.0,
        "Correlation of the codes' dimensions beyond chance, in standard deviations, under which they look "
        "like random numbers. Random starts measured up to 4, trained codebooks 460 and more.",
    )


def evaluate(
    start: Initialisation,
    forward: TrainForward | None,
    level: LevelUse | None,
    drawn: StartRows | None,
    ema: EmaState | None,
    limits: Limits,
) -> Problems:
    """Look at the rows, then at the flag, then for signs that no step was ever taken."""
    if level is not None and level.written is False and level.others_written:
        raise CannotJudge("other levels were trained, so the training leaves this one out (VQ506)")
    rows = start.sample_size
    if rows > 1 and start.identical_rows >= limits.identical * rows:
        if ema is not None and has_live_means(ema):
            return  # it was trained, and then overwritten: VQ311
        what = "zero" if start.zero_rows == rows else "one and the same"
        yield error(
            f"All {rows:,} codes are {what}: the codebook was never initialised, and every vector "
            "gets the same index.",
            measured("identical", start.identical_rows / rows, limits.identical),
        )
    elif start.flag is False:
        yield error(
            "The layer's own flag says that its data initialisation is still to come, so the next "
            f"forward pass overwrites its {rows:,} codes.",
            measured("initialised", 0.0, 1.0),
        )
    elif ema is not None and start.stepped is False and start.updates == 0:
        yield error(
            "The optimizer saved with it never took a step, and the file records 0 updates: it was saved "
            "before its training began, and its codes are those of k-means or of another training.",
            measured("updates", 0),
            confidence=Confidence.MEDIUM,
        )
    elif not start.frozen and start.counts_written is not True and start.structure < limits.structure:
        yield from _never_trained(start, forward, drawn, limits)


def _never_trained(
    start: Initialisation, forward: TrainForward | None, drawn: StartRows | None, limits: Limits
) -> Problems:
    rows = start.sample_size
    by_count = start.counts_written is False and forward is not None and bool(forward.writes_counts)
    left_behind = by_count and (start.stepped is True or (start.updates or 0) > 0)
    if left_behind:
        sign = (
            "so are its EMA counts, though the model was trained: a copy of its parameters alone was saved, "
            "such as an average, or the layer was in eval mode"
        )
    elif by_count:
        sign = "its EMA counts were never written, though a training pass writes them"
    elif start.stepped is False:
        sign = "the optimizer saved with it never took a step"
    elif start.updates == 0 and start.stepped is None:
        sign = "the file records 0 updates"
    elif drawn is not None and drawn.rows == rows and start.stepped is None:
        sign = f"every code lies as the constructor draws it, from {drawn.start}"
    else:
        return
    yield error(
        f"The codebook is as it was drawn at random ({figure(start.structure)} standard deviations "
        f"from pure noise), and {sign}{'' if left_behind else ': it was never trained'}.",
        measured("structure", start.structure, limits.structure),
        confidence=Confidence.HIGH if by_count else Confidence.MEDIUM,
        remedies=(COPY_BUFFERS,) if left_behind else (),
    )


_FRESH = Initialisation.healthy(counts_written=False, stepped=None, updates=None, structure=0.7)

CHECK = Check(
    code="VQ306",
    name="codebook-uninitialised",
    evaluate=evaluate,
    limits=Limits(),
    advice=Advice(
        name="load-trained-weights",
        how="Give the checkpoint of a trained model, and see that all of its tensors are loaded.",
        code="missing, unexpected = model.load_state_dict(state, strict=False)\n"
        "assert not missing and not unexpected, (missing, unexpected)",
    ),
    other_advice=(
        Advice(
            name=COPY_BUFFERS,
            how="Copy the buffers into the averaged model too, or average them, and save again.",
            code="for ours, theirs in zip(average.buffers(), model.buffers()):\n    ours.data.copy_(theirs)",
        ),
    ),
    examples=(
        fires(
            "k-means was asked for, and no batch ever came",
            _FRESH.replace(identical_rows=256, zero_rows=256, flag=False, structure=0.0),
        ),
        fires("the flag says that it is to come", _FRESH.replace(flag=False)),
        fires("saved at step 0, with its optimizer", _FRESH.replace(stepped=False)),
        fires(
            "the same after k-means",
            Initialisation.healthy(stepped=False, updates=0),
            EmaState.healthy(updates=0, start_weight=1.0),
        ),
        passes(
            "trained codes without an EMA, saved before they are trained further",
            Initialisation.healthy(stepped=False, updates=0),
        ),
        fires("counts that a training pass would have written", _FRESH, TrainForward.healthy()),
        fires(
            "a copy that got the trained parameters and no buffers",
            _FRESH.replace(stepped=True, updates=420),
            TrainForward.healthy(),
        ),
        fires("all levels", _FRESH.replace(flag=False), LevelUse.healthy(written=False, others_written=0)),
        fires(
            "every code as the constructor draws it",
            _FRESH.replace(counts_written=None),
            StartRows.healthy(rows=256, start="U(±1/256)", unused=None),
        ),
        passes(
            "trained and overwritten, which is VQ311",
            _FRESH.replace(identical_rows=256, zero_rows=256, structure=0.0),
            EmaState.healthy(),
        ),
        passes("trained", Initialisation.healthy()),
        passes(
            "trained by its optimizer, beside counts that are never written",
            _FRESH.replace(stepped=True, flag=True),
            TrainForward.healthy(writes_counts=False),
        ),
        passes("trained, its counts stripped", _FRESH.replace(structure=210.0), TrainForward.healthy()),
        passes("frozen random projection", _FRESH.replace(stepped=False, frozen=True, counts_written=None)),
    ),
    doc=__doc__,
)
