"""The names that a pickle may hold without a warning, each in full: behind a prefix anything could hide.

Below an allowed name lie its attributes ("torch.int8.__class__"), and protocol 4 lets a pickle walk there.
So a name is on a list whole, or it is foreign.

References:
    torch/_weights_only_unpickler.py, `_get_allowed_globals`: the names that torch's own safe loader takes.
"""

from __future__ import annotations

from vqdoctor.checkpoint.dtypes import DTYPES
from vqdoctor.checkpoint.pickles.danger import words

_ELEMENTS = words("Double Float Half BFloat16 Long Int Short Char Byte Bool")
_STORED = _ELEMENTS | words("ComplexDouble ComplexFloat QInt8 QInt32 QUInt8 QUInt2x4 QUInt4x2")
_PLACES = ("torch", "torch.cuda")

TENSORS = frozenset(
    f"{place}.{kind}Tensor" for place in (*_PLACES, "torch.sparse", "torch.cuda.sparse") for kind in _ELEMENTS
) | {"torch.Tensor"}
STORAGES = frozenset(f"{place}.{kind}Storage" for place in _PLACES for kind in _STORED) | words(
    "torch.storage.UntypedStorage torch.storage.TypedStorage torch.UntypedStorage torch.TypedStorage"
)
PARAMETERS = words(
    "torch.nn.parameter.Parameter torch.nn.parameter.Buffer torch.nn.Parameter torch.nn.Buffer"
)
CONTAINERS = words("collections.OrderedDict collections.Counter collections.defaultdict") | frozenset(
    f"{module}.{name}"
    for module in ("builtins", "__builtin__")
    for name in words("bool bytearray bytes complex dict float frozenset int list object set str tuple")
)
FILLED_LATER = words(
    """
    collections.OrderedDict collections.Counter collections.defaultdict
    builtins.dict builtins.list builtins.set builtins.bytearray
    __builtin__.dict __builtin__.list __builtin__.set __builtin__.bytearray
    """
)
"""Containers whose `__new__` passes over its arguments."""
_ELEMENT_TYPES = frozenset(f"torch.{name}" for name in DTYPES) | words(
    """
    torch.int1 torch.int2 torch.int3 torch.int4 torch.int5 torch.int6 torch.int7
    torch.uint1 torch.uint2 torch.uint3 torch.uint4 torch.uint5 torch.uint6 torch.uint7
    torch.bits8 torch.bits16 torch.bits1x8 torch.bits2x4 torch.bits4x2 torch.complex32
    torch.qint8 torch.quint8 torch.qint32 torch.quint4x2 torch.quint2x4 torch.float4_e2m1fn_x2
    """
)
_REBUILDS = words(
    """
    torch._utils._rebuild_tensor torch._utils._rebuild_tensor_v2 torch._utils._rebuild_tensor_v3
    torch._utils._rebuild_parameter torch._utils._rebuild_parameter_with_state
    torch._utils._rebuild_qtensor torch._utils._rebuild_sparse_tensor torch._utils._rebuild_sparse_csr_tensor
    torch._utils._rebuild_meta_tensor_no_storage torch._utils._rebuild_nested_tensor
    torch._utils._rebuild_wrapper_subclass torch._utils._rebuild_xla_tensor
    torch._utils._rebuild_device_tensor_from_numpy torch._utils._rebuild_device_tensor_from_cpu_tensor
    torch._tensor._rebuild_from_type_v2 torch.serialization._get_layout
    """
)
_DISTRIBUTED = words(
    """
    torch.distributed.tensor.DTensor torch.distributed._tensor.api.DTensor
    torch.distributed.device_mesh.DeviceMesh
    torch.distributed._mesh_layout._FlatLayout torch.distributed._mesh_layout._MeshLayout
    torch.distributed.tensor._dtensor_spec.DTensorSpec torch.distributed.tensor._dtensor_spec.TensorMeta
    torch.distributed.tensor._dtensor_spec.ShardOrderEntry
    torch.distributed.tensor.placement_types.Shard torch.distributed.tensor.placement_types.Replicate
    torch.distributed.tensor.placement_types.Partial torch.distributed.tensor.placement_types._StridedShard
    """
)
"""The parts of a DTensor, which torch.distributed.tensor adds to the safe loader's names."""
_LAYOUTS = words(
    """
    torch.Size torch.device torch.strided torch.sparse_coo _codecs.encode
    torch.per_tensor_affine torch.per_tensor_symmetric torch.per_channel_affine
    torch.per_channel_symmetric torch.per_channel_affine_float_qparams
    """
)

PLAIN = TENSORS | STORAGES | PARAMETERS | CONTAINERS | _ELEMENT_TYPES | _REBUILDS | _DISTRIBUTED | _LAYOUTS
"""Tensors and plain containers, as torch's own safe loader sees them: not foreign at all."""

_TORCH_MODULES = """
    activation: CELU ELU GELU GLU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid
        LogSoftmax Mish MultiheadAttention PReLU RReLU ReLU ReLU6 SELU SiLU Sigmoid Softmax Softmax2d
        Softmin Softplus Softshrink Softsign Tanh Tanhshrink Threshold
    adaptive: AdaptiveLogSoftmaxWithLoss
    batchnorm: BatchNorm1d BatchNorm2d BatchNorm3d LazyBatchNorm1d LazyBatchNorm2d LazyBatchNorm3d
        SyncBatchNorm
    channelshuffle: ChannelShuffle
    container: Container ModuleDict ModuleList ParameterDict ParameterList Sequential
    conv: Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d LazyConv1d LazyConv2d
        LazyConv3d LazyConvTranspose1d LazyConvTranspose2d LazyConvTranspose3d
    distance: CosineSimilarity PairwiseDistance
    dropout: AlphaDropout Dropout Dropout1d Dropout2d Dropout3d FeatureAlphaDropout
    flatten: Flatten Unflatten
    fold: Fold Unfold
    instancenorm: InstanceNorm1d InstanceNorm2d InstanceNorm3d LazyInstanceNorm1d LazyInstanceNorm2d
        LazyInstanceNorm3d
    linear: Bilinear Identity LazyLinear Linear NonDynamicallyQuantizableLinear
    loss: BCELoss BCEWithLogitsLoss CTCLoss CosineEmbeddingLoss CrossEntropyLoss GaussianNLLLoss
        HingeEmbeddingLoss HuberLoss KLDivLoss L1Loss LinearCrossEntropyLoss MSELoss MarginRankingLoss
        MultiLabelMarginLoss MultiLabelSoftMarginLoss MultiMarginLoss NLLLoss NLLLoss2d PoissonNLLLoss
        SmoothL1Loss SoftMarginLoss TripletMarginLoss TripletMarginWithDistanceLoss
    module: Module
    normalization: CrossMapLRN2d GroupNorm LayerNorm LocalResponseNorm RMSNorm
    padding: CircularPad1d CircularPad2d CircularPad3d ConstantPad1d ConstantPad2d ConstantPad3d
        ReflectionPad1d ReflectionPad2d ReflectionPad3d ReplicationPad1d ReplicationPad2d
        ReplicationPad3d ZeroPad1d ZeroPad2d ZeroPad3d
    pixelshuffle: PixelShuffle PixelUnshuffle
    pooling: AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d AdaptiveMaxPool1d AdaptiveMaxPool2d
        AdaptiveMaxPool3d AvgPool1d AvgPool2d AvgPool3d FractionalMaxPool2d FractionalMaxPool3d
        LPPool1d LPPool2d LPPool3d MaxPool1d MaxPool2d MaxPool3d MaxUnpool1d MaxUnpool2d MaxUnpool3d
    rnn: GRU GRUCell LSTM LSTMCell RNN RNNBase RNNCell RNNCellBase
    sparse: Embedding EmbeddingBag
    transformer: Transformer TransformerDecoder TransformerDecoderLayer TransformerEncoder
        TransformerEncoderLayer
    upsampling: Upsample UpsamplingBilinear2d UpsamplingNearest2d
"""
"""The layers of torch.nn, by the module below torch.nn.modules that defines them."""

KNOWN_HARMLESS = frozenset(
    f"torch.nn.modules.{module.strip()}.{name}"
    for module, _, names in (
        part.partition(":") for part in _TORCH_MODULES.replace("\n        ", " ").splitlines()
    )
    for name in names.split()
) | words(
    """
    argparse.Namespace types.SimpleNamespace collections.deque typing.Any uuid.UUID decimal.Decimal
    fractions.Fraction datetime.datetime datetime.date datetime.time datetime.timedelta datetime.timezone
    codecs.encode copyreg._reconstructor copy_reg._reconstructor builtins.slice builtins.range
    pathlib.Path pathlib.PosixPath pathlib.WindowsPath pathlib.PurePosixPath pathlib.PureWindowsPath
    pathlib._local.Path pathlib._local.PosixPath pathlib._local.WindowsPath
    pathlib._local.PurePosixPath pathlib._local.PureWindowsPath
    numpy.dtype numpy.ndarray numpy.core.multiarray._reconstruct numpy._core.multiarray._reconstruct
    numpy.core.multiarray.scalar numpy._core.multiarray.scalar
    numpy.bool_ numpy.int8 numpy.int16 numpy.int32 numpy.int64 numpy.uint8 numpy.uint16 numpy.uint32
    numpy.uint64 numpy.float16 numpy.float32 numpy.float64
    omegaconf.dictconfig.DictConfig omegaconf.listconfig.ListConfig omegaconf.base.ContainerMetadata
    omegaconf.base.Metadata omegaconf.nodes.AnyNode omegaconf.nodes.BooleanNode omegaconf.nodes.EnumNode
    omegaconf.nodes.FloatNode omegaconf.nodes.IntegerNode omegaconf.nodes.StringNode
    easydict.EasyDict addict.addict.Dict munch.Munch yacs.config.CfgNode
    ml_collections.config_dict.config_dict.ConfigDict
    pytorch_lightning.utilities.parsing.AttributeDict lightning.pytorch.utilities.parsing.AttributeDict
    lightning_fabric.utilities.data.AttributeDict lightning.fabric.utilities.data.AttributeDict
    torch.optim.adam.Adam torch.optim.adamw.AdamW torch.optim.sgd.SGD
    """
)
"""Foreign classes that hold values and run nothing when a pickle makes one of them."""


def is_known(name: str) -> bool:
    """Return whether a name that an unpickler met holds values only; no other name can be judged."""
    return name in PLAIN or name in KNOWN_HARMLESS
