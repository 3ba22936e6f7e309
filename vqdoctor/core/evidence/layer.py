"""How a VQ layer works: who writes it, how it cuts its input, its levels, its losses, its precision."""

from vqdoctor.core.evidence.base import Evidence


class CodebookWriters(Evidence):
    """Whether the forward pass undoes what an optimizer does to the codes. Sample size: rows compared.

    The rows that get a gradient are moved a little on a copy; then both copies go forward once more.

    Attributes:
        gradient: norm of the loss's gradient at the codebook; None if there is no path.
        listed: whether the task's own optimizer holds the codebook; None where the task has none.
        kept: median share of the move that is left after the next train-mode forward pass: 1 where only
            the optimizer writes, 0 where an EMA overwrites it; None where no row gets a gradient.
        replaced: whether a forward pass puts a new object in the parameter's place, which an optimizer
            built before does not know.
    """

    gradient: float | None
    listed: bool | None
    kept: float | None
    replaced: bool


CodebookWriters.HEALTHY = CodebookWriters(
    layer="vq", source="batch", sample_size=0, gradient=None, listed=None, kept=None, replaced=False
)


class Flattening(Evidence):
    """How the input is cut into vectors. Sample size: vectors.

    Positions are shuffled within each sample; a layer that looks at one position at a time must shuffle
    its codes alike.

    Attributes:
        positions: positions in a sample.
        equal: share of the vectors whose code moved with its position; None with one position.
        equal_as_stored: the same when each run of D values in memory is taken for a vector, which is what a
            `view` without a `permute` reads; None where that is no other cut.
        by_chance: the `equal` of codes that move at random.
        input_runs: whether each vector of the layer's input is a run of D values in memory of the
            channel-first tensor that it was made of: the permute before the layer is missing. None where
            no such tensor, with as many positions, precedes the layer.
        output_as_stored: share of the vectors whose code is not at their position of the output but in the
            run of D values in memory of their number: the permute back is missing. None where the layer's
            vectors are such runs, or z_q is not seen.
    """

    positions: int
    equal: float | None
    equal_as_stored: float | None
    by_chance: float | None
    input_runs: bool | None
    output_as_stored: float | None = None


Flattening.HEALTHY = Flattening(
    layer="vq", source="batch", sample_size=400, positions=16, equal=1.0, equal_as_stored=0.07,
    by_chance=0.07, input_runs=False,
)  # fmt: skip


class ResidualLevel(Evidence):
    """One level of a residual quantizer, seen from the input of the first. Sample size: vectors.

    Attributes:
        level: its number, from 1.
        levels: levels of the quantizer, Q.
        reach: |g| / |v| for a random gradient v at this level's input and g at the first level's: 1 where
            the residual is detached, 0 where the codes that are subtracted carry their own gradient. None
            where the level looks up a detached copy of the residual, and the way back is not seen.
        gain: the same from the output of the whole quantizer to its input; None where no module around
            the levels maps a float input to a float output of its shape. Both are medians over the vectors.
        subtracted: whether a level gets what the levels before it left. False where every level gets the
            very input of the first, and the model goes on with the sum or the mean of their codes.
        joined: what the model goes on with: the "sum" or the "mean" of the codes of all levels.
        added: whether a level gets the input of the level before it plus the codes of that one.
        last_only: whether every level gets the input of the first minus the codes of the level before it
            alone, and not those of all levels before it.
    """

    level: int
    levels: int
    reach: float | None
    gain: float | None
    subtracted: bool = True
    joined: str = "sum"
    added: bool = False
    last_only: bool = False


ResidualLevel.HEALTHY = ResidualLevel(
    layer="vq", source="batch", sample_size=400, level=2, levels=4, reach=1.0, gain=1.0
)


class GradientHealth(Evidence):
    """Gradients around the VQ layer that are not finite, or far too large. Sample size: vectors.

    Attributes:
        broken_input: values of z_e that are NaN or infinite.
        broken: gradient values that are NaN or infinite: through the layer, and those of the task and of
            the VQ loss at z_e.
        median_gain: median over the vectors of |g| / |v|, arriving over sent gradient.
        worst_gain: the largest of these.
        spikes: vectors whose gain is over 1,000 times the median.
        spike_share: share of the squared arriving gradient that the spikes carry.
    """

    broken_input: int
    broken: int
    median_gain: float
    worst_gain: float
    spikes: int
    spike_share: float


GradientHealth.HEALTHY = GradientHealth(
    layer="vq", source="batch", sample_size=1_600, broken_input=0, broken=0, median_gain=1.0, worst_gain=1.0,
    spikes=0, spike_share=0.0,
)  # fmt: skip


class LookupPrecision(Evidence):
    """The cost of low precision in the search for the nearest code.

    Sample size: vectors that were looked up; from a checkpoint, the codes.

    Attributes:
        dtype: the least precise type in the lookup, or of the stored codebook ("float32", "bfloat16").
        agreement: share of the vectors that get the same code in float32; None from a checkpoint.
        used: codes chosen as it is; None from a checkpoint.
        used_in_full: codes chosen in float32; None from a checkpoint.
        blurred_rows: stored codes whose squared distance to the nearest other code is under the rounding
            error of their squared norm in that type; 0 from a model.
        error_growth: growth of the mean squared distance from a vector to its code, over that with the codes
            chosen in float32; None where the vectors are not seen, or float32 takes others than the nearest.
        added_error: the same growth as a share of the vectors' total variance; None likewise.
    """

    dtype: str
    agreement: float | None = None
    used: int | None = None
    used_in_full: int | None = None
    blurred_rows: int = 0
    error_growth: float | None = None
    added_error: float | None = None


LookupPrecision.HEALTHY = LookupPrecision(
    layer="vq",
    source="batch",
    sample_size=400,
    dtype="float32",
    agreement=1.0,
    used=240,
    used_in_full=240,
    error_growth=0.0,
    added_error=0.0,
)


class LossTerms(Evidence):
    """The two terms of the VQ loss, told apart by their gradients. Sample size: vectors.

    The gradient at z_e is compared with that of mean (z_e - z_q)^2, and the gradient at the codebook
    with that of the same mean: the factors are the weights of the commitment and of the codebook term
    in a VQ loss that is a mean over everything.

    Attributes:
        dim: dimension of a code, D.
        commitment: the weight at z_e; None where the gradient has another form.
        codebook: the weight at the codebook; None where it has no gradient, or one of another form.
        beta: weight of the commitment term as the file records it or else the layer says; None unknown.
        beta_from: "record", "layer", or "" where unknown.
        legacy: whether the layer says of itself that it keeps the terms swapped (`legacy=True`).
    """

    dim: int
    commitment: float | None
    codebook: float | None
    beta: float | None
    beta_from: str
    legacy: bool


LossTerms.HEALTHY = LossTerms(
    layer="vq", source="batch", sample_size=400, dim=64, commitment=0.25, codebook=1.0, beta=0.25,
    beta_from="record", legacy=False,
)  # fmt: skip


class LossUse(Evidence):
    """Whether the VQ layer's loss takes part in the training. Sample size: vectors.

    Attributes:
        offered: norm of the gradient at z_e of the loss that the layer returns; 0 where it returns none.
        used: whether the task's losses depend on the loss that the layer returns; None where it returns none.
        reported: the VQ loss that the task reports; None where it reports none.
        gradient: norm of the reported VQ loss's gradient at z_e; None where it is not reported.
        vq_weight: weight of the VQ loss in the training; None where unknown.
    """

    offered: float
    used: bool | None
    reported: float | None
    gradient: float | None
    vq_weight: float | None


LossUse.HEALTHY = LossUse(
    layer="vq", source="batch", sample_size=400, offered=0.0099, used=True, reported=0.165, gradient=0.0099,
    vq_weight=0.1,
)  # fmt: skip


class LossPath(Evidence):
    """Whether the VQ loss depends on anything that is trained. Sample size: vectors.

    Attributes:
        value: the VQ loss of the first training batch: the one that the task reports, or else the layer's
            output that stays proportional to |z_e - z_q|^2; None where there is neither.
        reported: whether the task reports it.
        alive: whether it requires a gradient; None without a value, or where the encoder is frozen and no
            loss could.
        vq_weight: weight of the VQ loss in the training; None where unknown.
    """

    value: float | None
    reported: bool
    alive: bool | None
    vq_weight: float | None = None


LossPath.HEALTHY = LossPath(
    layer="vq", source="batch", sample_size=400, value=0.165, reported=True, alive=True, vq_weight=0.1
)


class CollapseReward(Evidence):
    """The VQ loss where vectors choose several codes, beside its mean where all choose one of them.

    Sample size: vectors. Each code gets equally many vectors in both, so that every loss which is a mean over
    vectors is the same in both: they differ by what couples vectors, as an entropy of the batch does.

    Attributes:
        codes: how many codes the vectors choose where they choose several.
        spread: the VQ loss there.
        one: the mean of the VQ losses where all vectors choose one of these codes.
        reach: share of the gradient at z_e that couples vectors: the difference of the gradients at equal
            vectors over the sum of their sizes, 0 to 1. A term on the codes alone has 0.
        vq_weight: weight of the VQ loss in the training; None where unknown.
    """

    codes: int
    spread: float
    one: float
    reach: float
    vq_weight: float | None = None


CollapseReward.HEALTHY = CollapseReward(
    layer="vq", source="batch", sample_size=400, codes=4, spread=0.4, one=1.8, reach=0.5, vq_weight=0.1
)


class GroupChoice(Evidence):
    """The codes that one group of a product quantizer chose, beside those of the first. Sample size: vectors.

    Levels of a residual stack are groups as well: each codebook gets another input.

    Attributes:
        group: its number, from 1.
        groups: how many there are.
        same: share of its codes that have the index of the first group's.
        nearest: share of its codes that are the nearest to its own input.
        first_nearest: the same in the first group.
        nearest_same: share of the nearest codes that have the index of the first group's choice.
    """

    group: int
    groups: int
    same: float
    nearest: float
    first_nearest: float
    nearest_same: float


GroupChoice.HEALTHY = GroupChoice(
    layer="vq", source="batch", sample_size=569, group=2, groups=6, same=0.07, nearest=1.0, first_nearest=1.0,
    nearest_same=0.07,
)  # fmt: skip


class GroupInput(Evidence):
    """Which part of their module's input the groups of a product quantizer get. Sample size: vectors.

    Attributes:
        group: its number, from 1.
        groups: how many there are.
        parts: how many vectors of a group's dimension lie side by side in the module's input.
        read: how many of these parts any group gets.
    """

    group: int
    groups: int
    parts: int
    read: int


GroupInput.HEALTHY = GroupInput(
    layer="vq", source="batch", sample_size=569, group=2, groups=4, parts=4, read=4
)
