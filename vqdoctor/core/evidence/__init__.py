"""Evidence: all that travels from the probes upwards."""

from vqdoctor.core.evidence.base import SOURCES, Evidence, NotFiniteError, Source, Unavailable
from vqdoctor.core.evidence.codebook import (
    ACTIVE_SHARE,
    CodebookGeometry,
    CountsUsage,
    DataMatch,
    EmaRelation,
    EmaState,
    LookupScale,
    Usage,
)
from vqdoctor.core.evidence.dynamics import Revival, Trace
from vqdoctor.core.evidence.file import (
    ForeignObjects,
    NonFinite,
    OptimizerMemory,
    TrainingRecord,
)
from vqdoctor.core.evidence.gradient import (
    CodebookGradient,
    GradientPath,
    LossBalance,
    TaskGradient,
)
from vqdoctor.core.evidence.implicit import ImplicitLevels
from vqdoctor.core.evidence.layer import (
    CodebookWriters,
    Flattening,
    GradientHealth,
    LookupPrecision,
    LossPath,
    LossTerms,
    LossUse,
    ResidualLevel,
)
from vqdoctor.core.evidence.state import (
    BatchMixing,
    CodeExpiry,
    EvalForward,
    Initialisation,
    TrainEvalGap,
    TrainForward,
    WeightDecay,
)
from vqdoctor.core.evidence.task import InputSummary, PositionInformation, TaskMetrics
from vqdoctor.core.evidence.use import CodeSequences, EncoderSpread, LevelUse

__all__ = [
    "ACTIVE_SHARE",
    "SOURCES",
    "BatchMixing",
    "CodeExpiry",
    "CodeSequences",
    "CodebookGeometry",
    "CodebookGradient",
    "CodebookWriters",
    "CountsUsage",
    "DataMatch",
    "EmaRelation",
    "EmaState",
    "EncoderSpread",
    "EvalForward",
    "Evidence",
    "Flattening",
    "ForeignObjects",
    "GradientHealth",
    "GradientPath",
    "ImplicitLevels",
    "Initialisation",
    "InputSummary",
    "LevelUse",
    "LookupPrecision",
    "LookupScale",
    "LossBalance",
    "LossPath",
    "LossTerms",
    "LossUse",
    "NonFinite",
    "NotFiniteError",
    "OptimizerMemory",
    "PositionInformation",
    "ResidualLevel",
    "Revival",
    "Source",
    "TaskGradient",
    "TaskMetrics",
    "Trace",
    "TrainEvalGap",
    "TrainForward",
    "TrainingRecord",
    "Unavailable",
    "Usage",
    "WeightDecay",
]
