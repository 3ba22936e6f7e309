"""The codebook: who is used, what it looks like, how its EMA stands, and how it fits the data."""

from vqdoctor.core.evidence.base import Evidence

EMA_COUNTS = "ema-counts"
"""The estimator of a usage that comes from EMA counts."""
ACTIVE_SHARE = 0.1
"""A code is active above this multiple of the uniform share 1/K of the usage, and dead under it."""


class Usage(Evidence):
    """Which codes are chosen, and how evenly. Sample size: the vectors that were quantized.

    From a checkpoint the counts are EMA counts: `window` says over how many batches.

    Attributes:
        num_codes: codes in the codebook, K.
        used: codes chosen at least once.
        active: codes above `active_share` / K of the usage.
        expected_used: codes that uniform usage would have chosen, K (1 - (1 - 1/K)^N).
        expected_active: codes that uniform usage would have made active, on this sample size.
        share: used / K.
        perplexity: exp of the entropy of the usage, in codes; `estimator` says how it was estimated.
        perplexity_low: lower end of its 95 % interval.
        perplexity_high: upper end of its 95 % interval.
        plug_in_perplexity: exp of the plain entropy: what training scripts print.
        estimator: "grassberger" (corrected for the sample size; from a checkpoint, of a window of the last
            indices) or "ema-counts" (plain).
        max_share: share of the most used code.
        rest_perplexity: perplexity of the other codes, by the plain entropy, where one code stands far above
            them and they are used evenly; active codes are then counted by the share of these. Else None.
        unseen_mass: Good-Turing estimate of the usage of codes not seen yet.
        groups: samples (images, clips) that the vectors come from; vectors of one are correlated.
        effective_size: independent vectors that would be as informative as these.
        active_share: the multiple of 1/K above which a code is active.
        count_quantiles: the sorted counts at evenly spaced quantiles from 0 to 1, least first.
        histogram: counts by code, where asked for; else empty.
        at_least: whether K is unknown, and `num_codes` the highest index seen plus one.
        implicit: whether no codebook is stored (FSQ, LFQ): codes combine levels, and none can die.
        window: batches that EMA counts remember, (1 + d)/(1 - d); None for counts of a batch.
        assumed_decay: the layout's own EMA decay d, where the file records none and `window` rests on it.
    """

    num_codes: int
    used: int
    active: int
    expected_used: float
    expected_active: float
    share: float
    perplexity: float
    perplexity_low: float
    perplexity_high: float
    plug_in_perplexity: float
    estimator: str
    max_share: float
    rest_perplexity: float | None = None
    unseen_mass: float = 0.0
    groups: int | None = None
    effective_size: float | None = None
    active_share: float = ACTIVE_SHARE
    count_quantiles: tuple[float, ...] = ()
    histogram: tuple[float, ...] = ()
    implicit: bool = False
    at_least: bool = False
    window: float | None = None
    assumed_decay: float | None = None

    @property
    def vectors(self) -> int:
        """The vectors that were quantized; for EMA counts, their sum rounded."""
        return self.sample_size


Usage.HEALTHY = Usage(
    layer="vq", source="batch", sample_size=28_752, num_codes=256, used=251, active=240,
    expected_used=256.0, expected_active=256.0, share=0.98, perplexity=190.0, perplexity_low=184.0,
    perplexity_high=196.0, plug_in_perplexity=189.0, estimator="grassberger", max_share=0.031,
    unseen_mass=0.0002, groups=1797, effective_size=9_600.0,
)  # fmt: skip


class CodebookGeometry(Evidence):
    """The codebook's rows as points. Sample size: the rows, K.

    Attributes:
        dim: dimension of a code, D.
        dtype: how the codebook is stored ("float32", "bfloat16", …).
        rms: root mean square of all elements.
        norm_min: smallest row norm.
        norm_median: median row norm.
        norm_max: largest row norm.
        mean_norm: norm of the mean row.
        zero_rows: rows that are zero, or under 1e-6 of the median norm of the live rows.
        oversized_rows: rows whose norm is over 100 times the median of the live rows.
        duplicate_rows: rows closer than 1e-3 of the codebook's spread to an earlier row, and not to zero.
        most_copied: the most rows that equal each other; None from earlier releases.
        unused_copies: rows that lie on another one, earlier or later, and were not chosen lately by the EMA
            counts; None without counts.
        effective_rank: exp of the entropy of the normalised squared singular values, at most min(K, D).
        init_box_rows: rows that still lie within ±1/K in every dimension.
        unit_rows: whether every live row has norm one (a cosine codebook).
    """

    dim: int
    dtype: str
    rms: float
    norm_min: float
    norm_median: float
    norm_max: float
    mean_norm: float
    zero_rows: int
    oversized_rows: int
    duplicate_rows: int
    effective_rank: float
    init_box_rows: int
    unit_rows: bool
    most_copied: int | None = None
    unused_copies: int | None = None


CodebookGeometry.HEALTHY = CodebookGeometry(
    layer="vq", source="checkpoint", sample_size=256, dim=64, dtype="float32", rms=1.43, norm_min=4.2,
    norm_median=11.3, norm_max=19.8, mean_norm=4.2, zero_rows=0, oversized_rows=0, duplicate_rows=0,
    effective_rank=10.6, init_box_rows=0, unit_rows=False,
)  # fmt: skip


class Directions(Evidence):
    """In how many directions the codes in use, and z_e, vary. Sample size: the codes in use.

    A direction counts if it holds over 1e-4 of the variance. Codes count as often as they are used.

    Attributes:
        dim: dimension, D.
        code_directions: directions of the codes in use.
        code_directions_99: directions that hold 99 % of their variance.
        code_rank: their effective rank.
        vectors: z_e vectors that were seen; 0 from a file alone.
        vector_directions: directions of z_e; None where it was not seen, as are the next two.
        vector_directions_99: directions that hold 99 % of its variance.
        vector_rank: its effective rank.
        input_directions: directions of the part of the input that one z_e vector depends on. None where that
            could not be traced.
    """

    dim: int
    code_directions: int
    code_directions_99: int
    code_rank: float
    vectors: int = 0
    vector_directions: int | None = None
    vector_directions_99: int | None = None
    vector_rank: float | None = None
    input_directions: int | None = None


Directions.HEALTHY = Directions(
    layer="vq", source="batch", sample_size=256, dim=64, code_directions=13, code_directions_99=5,
    code_rank=2.27, vectors=28_752, vector_directions=17, vector_directions_99=7, vector_rank=2.49,
    input_directions=36,
)  # fmt: skip


class EmaState(Evidence):
    """The EMA counts and sums beside the codebook. Sample size: the codes, K.

    Attributes:
        total: sum of the counts: the EMA of vectors per batch.
        count_min: smallest count.
        count_max: largest count.
        never_written: whether the counts still have a common start value (all zero or all one).
        zero_counts: codes whose count is under 1e-3 of the mean count.
        decay: EMA decay d, where it is known.
        updates: EMA updates t, where they are known.
        start_weight: d^t, the weight of the start values in the counts; None where d or t is unknown.
        sums_disagreement: median over the live codes of |E - S/c| / |E|; None without sums.
        worst_disagreement: the largest of these; None without sums.
        compared_rows: live codes that were compared; 0 without sums.
        from_zero: codes that have grown far beyond the others, and whose count is too small for one that
            started at one: a count that nothing adds to is d^t. 0 where d or t is unknown.
        means_spread: root mean square distance of S/c of the codes in use from their middle, as a share of
            their length; None without sums of codes in use.
        blurred: whether the codes in use lie near their own S/c and hardly any on it, as averages of weights
            and numbers of 8 bits do.
        divided_by_zero: codes with a count under 1e-3 of the mean that no vector ever added to: all have the
            same. 0 where that may be what a start of one has shrunk to; None in reports that lack it.
    """

    total: float
    count_min: float
    count_max: float
    never_written: bool
    zero_counts: int
    decay: float | None = None
    updates: int | None = None
    start_weight: float | None = None
    sums_disagreement: float | None = None
    worst_disagreement: float | None = None
    compared_rows: int = 0
    means_spread: float | None = None
    blurred: bool = False
    from_zero: int = 0
    divided_by_zero: int | None = None


EmaState.HEALTHY = EmaState(
    layer="vq", source="checkpoint", sample_size=256, total=1_024.0, count_min=0.4, count_max=31.0,
    never_written=False, zero_counts=0, decay=0.99, updates=2_640, start_weight=3e-12,
    sums_disagreement=2e-7, worst_disagreement=9e-7, compared_rows=256, means_spread=0.93,
)  # fmt: skip


class EmaRelation(Evidence):
    """How the codes E stand to the means S/c of their EMA. Sample size: the codes that are compared.

    A sound EMA writes E = S/c. Codes that are hardly ever chosen are not compared, since an unknown smoothing
    of the counts decides on them.

    Attributes:
        total: sum of the counts: the EMA of vectors per batch.
        scale: median of |E| / |S/c|.
        scale_spread: interquartile range of |E| / |S/c|, over its median.
        cosine: the 5 % quantile of the cosine of E and S.
        count_power: slope of log(|E| / |S/c|) over log c: 0 where counts are divided by, 1 where E = S.
        sum_scale: median of |E| / |S|.
        divisor: what the sums are divided by, up to one factor: "counts", "constant" (the same for all),
            "mean" (the mean of the counts), "inverse" (one over the counts), "added" (counts + `added`),
            "whole" (whole numbers, as the counts of one batch), or "" for none of these.
        added: what is added to the counts; 0 unless the divisor is "added".
        code_norm: median |E|.
        code_norm_spread: interquartile range of |E|, over its median.
        mean_norm: median |S/c|.
        lookup: "euclidean", "cosine" or "logits", where the layout tells; "" where it does not.
    """

    total: float
    scale: float
    scale_spread: float
    cosine: float
    count_power: float
    sum_scale: float
    code_norm: float
    code_norm_spread: float
    mean_norm: float
    divisor: str = ""
    added: float = 0.0
    lookup: str = ""


EmaRelation.HEALTHY = EmaRelation(
    layer="vq", source="checkpoint", sample_size=256, total=400.0, scale=1.0, scale_spread=6e-6, cosine=1.0,
    count_power=9e-6, sum_scale=0.68, code_norm=21.0, code_norm_spread=0.64, mean_norm=21.0,
    divisor="counts",
)  # fmt: skip


class DataMatch(Evidence):
    """The encoder's output z_e against the codebook. Sample size: the z_e vectors.

    All lengths are in the units of z_e. Var is the total variance, summed over dimensions.

    Attributes:
        dim: dimension, D.
        data_rms: root mean square of z_e's elements.
        data_std: root mean square distance of a z_e to the mean z_e (sqrt of Var).
        data_mean_norm: norm of the mean z_e.
        data_effective_rank: effective rank of centred z_e, at most D.
        codebook_rms: root mean square of the codebook's elements.
        codebook_std: root mean square distance of a code to the mean code.
        mean_offset: |mean z_e - mean code| / data_std.
        quantization_error: mean |z_e - z_q|^2 / Var: 0 perfect, 1 no better than one code at the mean.
        scale_ratio: data_rms / codebook_rms.
        nearest_data: median over the codes of the distance to the nearest z_e, over data_std.
        mean_gain: share of the quantization error that is gone once each code is the mean of its z_e: next to
            0 where the codes follow the data. None where it was not measured.
    """

    dim: int
    data_rms: float
    data_std: float
    data_mean_norm: float
    data_effective_rank: float
    codebook_rms: float
    codebook_std: float
    mean_offset: float
    quantization_error: float
    scale_ratio: float
    nearest_data: float
    mean_gain: float | None = None


DataMatch.HEALTHY = DataMatch(
    layer="vq", source="batch", sample_size=28_752, dim=64, data_rms=1.6, data_std=12.0, data_mean_norm=4.3,
    data_effective_rank=11.0, codebook_rms=1.43, codebook_std=10.9, mean_offset=0.11,
    quantization_error=0.073, scale_ratio=1.12, nearest_data=0.12,
)  # fmt: skip


class LookupScale(Evidence):
    """Lengths of codes and of the vectors that choose them. Sample size: vectors.

    Attributes:
        code_norm: median length of the codes in use.
        vector_norm: median length of the vectors.
        vector_spread: interquartile range of the vectors' lengths, over their median.
        factor: the one factor on all codes that fits the vectors best: 1 where codes are means of vectors,
            and the mean cosine where both have length one.
    """

    code_norm: float
    vector_norm: float
    factor: float
    vector_spread: float = 1.0


LookupScale.HEALTHY = LookupScale(
    layer="vq", source="batch", sample_size=28_752, code_norm=21.0, vector_norm=24.3, factor=0.98,
    vector_spread=0.4,
)  # fmt: skip


class CodeChoice(Evidence):
    """The codes that a layer chose for its vectors, beside those that a search would. Sample size: vectors.

    Attributes:
        nearest: share of the choices that are the nearest code.
        farthest: share that are the code farthest away.
        product: share that are the code with the largest product.
        direction: share that are the code of the nearest direction.
    """

    nearest: float
    farthest: float
    product: float
    direction: float


CodeChoice.HEALTHY = CodeChoice(
    layer="vq", source="batch", sample_size=4_096, nearest=1.0, farthest=0.0, product=0.7, direction=0.8
)


class CountsUsage(Evidence):
    """The perplexity that the EMA counts of a file claim, as monitors print it. Sample size: the codes, K.

    Attributes:
        perplexity: exp of the entropy of the counts, in codes.
        low: lower end of its 95 % interval.
        high: upper end of its 95 % interval.
    """

    perplexity: float
    low: float
    high: float


CountsUsage.HEALTHY = CountsUsage(
    layer="vq", source="checkpoint", sample_size=256, perplexity=213.0, low=211.0, high=215.0
)
