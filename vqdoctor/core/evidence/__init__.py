"""Evidence: all that travels from the probes upwards."""

from vqdoctor.core.evidence.base import SOURCES, Evidence, NotFiniteError, Scalar, Source, Unavailable
from vqdoctor.core.evidence.codebook import CodebookGeometry, DataMatch, EmaState, Usage
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
from vqdoctor.core.evidence.task import InputSummary, PositionInformation, TaskMetrics

__all__ = [
    "SOURCES",
    "CodebookGeometry",
    "CodebookGradient",
    "DataMatch",
    "EmaState",
    "Evidence",
    "ForeignObjects",
    "GradientPath",
    "InputSummary",
    "LossBalance",
    "NonFinite",
    "NotFiniteError",
    "OptimizerMemory",
    "PositionInformation",
    "Scalar",
    "Source",
    "TaskGradient",
    "TaskMetrics",
    "TrainingRecord",
    "Unavailable",
    "Usage",
]
