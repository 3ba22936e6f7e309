"""One healthy specimen of each kind of evidence, from which the checks' examples and tests depart.

Hand-made, in the size that trained Conv2d-VQ classifiers of 8x8 digits measure: K = 256, D = 64, 16
positions, 1,797 images, 30 epochs.
"""

from __future__ import annotations

from vqdoctor.core.evidence import (
    BatchMixing,
    CodebookGeometry,
    CodebookGradient,
    CodebookWriters,
    CodeExpiry,
    CodeSequences,
    DataMatch,
    EmaState,
    EncoderSpread,
    EvalForward,
    Flattening,
    ForeignObjects,
    GradientHealth,
    GradientPath,
    ImplicitLevels,
    Initialisation,
    LevelUse,
    LookupPrecision,
    LossBalance,
    LossTerms,
    LossUse,
    NonFinite,
    OptimizerMemory,
    PositionInformation,
    ResidualLevel,
    Revival,
    TaskGradient,
    TaskMetrics,
    Trace,
    TrainForward,
    TrainingRecord,
    Usage,
    WeightDecay,
)

USAGE = Usage(
    layer="vq", source="batch", sample_size=28_752, num_codes=256, used=251, active=240,
    expected_used=256.0, expected_active=256.0, share=0.98, perplexity=190.0, perplexity_low=184.0,
    perplexity_high=196.0, plug_in_perplexity=189.0, estimator="grassberger", max_share=0.031,
    unseen_mass=0.0002, groups=1797, effective_size=9_600.0,
)  # fmt: skip

EMA_USAGE = USAGE.replace(
    source="checkpoint", sample_size=1_024, perplexity=213.0, perplexity_low=213.0, perplexity_high=213.0,
    plug_in_perplexity=213.0, estimator="ema-counts", unseen_mass=0.0, groups=None, effective_size=None,
    window=199.0,
)  # fmt: skip

COLLAPSED_USAGE = USAGE.replace(
    used=1, active=1, share=1 / 256, perplexity=1.0, perplexity_low=1.0, perplexity_high=1.0,
    plug_in_perplexity=1.0, max_share=1.0, unseen_mass=0.0,
)  # fmt: skip

IMPLICIT_USAGE = USAGE.replace(
    num_codes=200, used=96, active=70, expected_used=200.0, expected_active=200.0, share=0.48,
    perplexity=52.0, perplexity_low=51.0, perplexity_high=53.0, plug_in_perplexity=52.0, implicit=True,
)  # fmt: skip
IMPLICIT_LEVELS = ImplicitLevels(
    layer="vq", source="batch", sample_size=28_752,
    levels=(8, 5, 5), used=(8, 5, 5), edge_share=(0.28, 0.07, 0.52),
)  # fmt: skip
GRADIENT_PATH = GradientPath(
    layer="vq", source="batch", sample_size=4_096, estimator="straight-through", ratio=1.0, cosine=1.0,
    zero_share=0.0, worst_gain=1.0,
)  # fmt: skip

OPTIMIZER_MEMORY = OptimizerMemory(
    layer="vq", source="checkpoint", sample_size=14, parameters=14, before_gradient=0.026,
    after_gradient=0.0051, ratio=5.1, codebook_listed=False,
)  # fmt: skip

NO_OPTIMIZER = OptimizerMemory(source="checkpoint", sample_size=0, parameters=0)

TASK_GRADIENT = TaskGradient(
    layer="vq", source="batch", sample_size=4_096, at_output=0.21, at_input=0.21, ratio=1.0, before=0.012,
    after=0.0061,
)  # fmt: skip

CODEBOOK_GRADIENT = CodebookGradient(
    layer="vq", source="batch", sample_size=256, trainable=False, ema_owned=True, gradient=None
)

LOSS_BALANCE = LossBalance(
    layer="vq", source="batch", sample_size=4_096, task_loss=0.31, vq_loss=0.165, vq_weight=0.1,
    vq_gradient=0.0099, task_gradient=0.2, ratio=0.0049,
)  # fmt: skip

TRAINING_RECORD = TrainingRecord(
    source="checkpoint", sample_size=6, vq_weight=0.1, decay=0.99, epochs=30, updates=2_640, batch_size=16,
    learning_rate=0.001,
)  # fmt: skip

DATA_MATCH = DataMatch(
    layer="vq", source="batch", sample_size=28_752, dim=64, data_rms=1.6, data_std=12.0, data_mean_norm=4.3,
    data_effective_rank=11.0, codebook_rms=1.43, codebook_std=10.9, mean_offset=0.11,
    quantization_error=0.073, scale_ratio=1.12, nearest_data=0.12,
)  # fmt: skip

EMA_STATE = EmaState(
    layer="vq", source="checkpoint", sample_size=256, total=1_024.0, count_min=0.4, count_max=31.0,
    never_written=False, zero_counts=0, decay=0.99, updates=2_640, start_weight=3e-12,
    sums_disagreement=2e-7, worst_disagreement=9e-7, compared_rows=256,
)  # fmt: skip

GEOMETRY = CodebookGeometry(
    layer="vq", source="checkpoint", sample_size=256, dim=64, dtype="float32", rms=1.43, norm_min=4.2,
    norm_median=11.3, norm_max=19.8, mean_norm=4.2, zero_rows=0, oversized_rows=0, duplicate_rows=0,
    effective_rank=10.6, init_box_rows=0, unit_rows=False,
)  # fmt: skip

POSITIONS = PositionInformation(
    layer="vq", source="batch", sample_size=28_752, positions=16, code_information=1.61, label_entropy=3.32,
    code_accuracy=0.5, pooled_accuracy=0.95, chance_accuracy=0.11, code_entropy=5.1,
)  # fmt: skip

METRICS = TaskMetrics(
    source="batch", sample_size=397, split="val", accuracy=0.95, bypass_accuracy=0.96, shuffled_accuracy=0.94,
    mean_code_accuracy=0.11, chance_accuracy=0.11, ece=0.021, loss=0.22, bypass_loss=0.2, shuffled_loss=0.24,
    mean_code_loss=2.6,
)  # fmt: skip

NON_FINITE = NonFinite(layer="vq", source="checkpoint", sample_size=33_024)

FOREIGN_OBJECTS = ForeignObjects(source="checkpoint", sample_size=0)

CODEBOOK_WRITERS = CodebookWriters(
    layer="vq", source="batch", sample_size=0, gradient=None, listed=None, kept=None, replaced=False
)

FLATTENING = Flattening(
    layer="vq", source="batch", sample_size=400, positions=16, equal=1.0, equal_as_stored=0.07,
    by_chance=0.07, input_runs=False,
)  # fmt: skip

RESIDUAL_LEVEL = ResidualLevel(
    layer="vq", source="batch", sample_size=400, level=2, levels=4, reach=1.0, gain=1.0
)

GRADIENT_HEALTH = GradientHealth(
    layer="vq", source="batch", sample_size=1_600, broken_input=0, broken=0, median_gain=1.0, worst_gain=1.0,
    spikes=0, spike_share=0.0,
)  # fmt: skip

LOOKUP_PRECISION = LookupPrecision(
    layer="vq", source="batch", sample_size=400, dtype="float32", agreement=1.0, used=240, used_in_full=240
)

LOSS_TERMS = LossTerms(
    layer="vq", source="batch", sample_size=400, dim=64, commitment=0.25, codebook=1.0, beta=0.25,
    beta_from="record", legacy=False,
)  # fmt: skip

LOSS_USE = LossUse(
    layer="vq", source="batch", sample_size=400, offered=0.0099, used=True, reported=0.165, gradient=0.0099,
    vq_weight=0.1,
)  # fmt: skip

INITIALISATION = Initialisation(
    layer="vq", source="checkpoint", sample_size=256, identical_rows=1, zero_rows=0, counts_written=True,
    stepped=True, updates=2_640, structure=270.0,
)  # fmt: skip

TRAIN_FORWARD = TrainForward(
    layer="vq", source="batch", sample_size=4, first_moved=0.002, later_moved=0.002, writes_counts=True
)

EVAL_FORWARD = EvalForward(layer="vq", source="batch", sample_size=3)

WEIGHT_DECAY = WeightDecay(
    layer="vq", source="checkpoint", sample_size=256, weight_decay=0.01, learning_rate=0.001, updates=2_640,
    lost=0.026,
)  # fmt: skip

CODE_EXPIRY = CodeExpiry(layer="vq", source="batch", sample_size=256, vectors=400.0, replaced=0.0)

BATCH_MIXING = BatchMixing(
    source="batch", sample_size=1_100, batch_size=25, batches=44, label_drift=0.0002, label_z=0.1,
    code_drift=0.0004, code_z=0.7,
)  # fmt: skip

TRACE = Trace(
    layer="vq", source="trace", sample_size=8, optimizer="Adam", own=True, learning_rate=0.002, vq_weight=0.1,
    weight_known=True, vectors=(400,) * 8, used=(184, 181, 175, 177, 186, 177, 183, 180), used_in_all=252,
    perplexity=(149.0, 147.0, 147.0, 146.0, 150.0, 139.0, 151.0, 145.0),
    z_e_rms=(3.33, 3.37, 3.32, 3.33, 3.39, 3.36, 3.3, 3.29),
    codebook_rms=(3.11, 3.14, 3.09, 3.13, 3.13, 3.09, 3.11, 2.97),
    encoder_gradient=(0.046, 0.55, 0.59, 0.4, 0.3, 0.23, 0.09, 0.1),
    z_e_gradient=(0.0014, 0.0092, 0.0089, 0.008, 0.0031, 0.0039, 0.0016, 0.0015),
    task_loss=(0.026, 0.091, 0.054, 0.055, 0.055, 0.043, 0.027, 0.029),
    vq_loss=(0.32, 0.36, 0.33, 0.32, 0.32, 0.3, 0.3, 0.31),
)  # fmt: skip

REVIVAL = Revival(layer="vq", source="batch", sample_size=4, num_codes=256, undone=0, returned=0)

LEVEL_USE = LevelUse(
    layer="vq", source="batch", sample_size=256, level=3, levels=4, written=True, others_written=3, left=0.3,
    first_perplexity=190.0,
)  # fmt: skip

ENCODER_SPREAD = EncoderSpread(
    layer="vq", source="batch", sample_size=28_752, output_spread=0.89, input_spread=0.56, input_rank=20.5,
    samples=1_000,
)  # fmt: skip

CODE_SEQUENCES = CodeSequences(
    layer="vq", source="batch", sample_size=6_400, sequences=100, length=64, used=240, constant_share=0.0,
    dwell=1.9, transition_entropy=3.1, same_share=0.06, within=0.7,
)  # fmt: skip
