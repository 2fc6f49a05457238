"""Operators of which every axis is pinned, each with the reason.

They are declared so that a report tells an operator that cannot be cut from one that nobody has looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphprune.rules.call import Axes, Call
from graphprune.rules.table import Rule, RuleFunction, bind

__all__ = ["Opaque", "is_opaque"]


@dataclass(frozen=True)
class Opaque:
    """A rule that pins all operands and results, for ``reason``."""

    reason: str

    def __call__(self, call: Call) -> Sequence[Axes | None]:
        for operand in call.operands:
            if operand is not None:
                call.pin(operand.axes or (), self.reason)
        return call.unknown_results(self.reason)


def is_opaque(rule: Rule | RuleFunction) -> bool:
    """Whether a rule pins everything it touches."""
    return isinstance(rule, Opaque)


def _declare(reason: str, operators: str, domain: str = "onnx") -> None:
    rule = Opaque(reason)
    for operator in operators.split():
        bind(f"{domain}.{operator}", rule)


_POSITIONS = "its results are positions or counts"
_declare(_POSITIONS, "NonZero NonMaxSuppression Unique Multinomial")
_declare(_POSITIONS, "Unique BifurcationDetector NGramRepeatBlock SampleOp", "com.microsoft")
_declare("makes numbers of its own", "BlackmanWindow HammingWindow HannWindow Range")
_declare("makes numbers of its own", "Constant RandomNormal RandomUniform")
_declare("makes numbers of its own", "Range", "com.microsoft")
_declare("makes a filter bank", "MelWeightMatrix")
_declare("places count over the whole tensor", "MaxUnpool")
_declare("class numbers address its axes", "NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss")
_declare("from before opset 7", "DynamicSlice GivenTensorFill GRUUnit")
_declare("a diagonal over both axes", "EyeLike")

_SEQUENCE = "tensors in sequences are not followed"
_declare(
    _SEQUENCE,
    "SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength SequenceMap "
    "SplitToSequence ConcatFromSequence",
)
_declare("optional values are not followed", "Optional OptionalGetElement OptionalHasElement")
_declare("works on text or encoded images", "ImageDecoder RegexFullMatch StringConcat StringNormalizer StringSplit")
_declare("works on tokens", "TfIdfVectorizer")
_declare(
    "works on text or tokens",
    "MurmurHash3 NGramHashMapping Tokenizer VarlenNGramHashMapping WordConvEmbedding SpeculativePrefixCommit",
    "com.microsoft",
)

_declare(
    "its coefficients are attributes",
    "ArrayFeatureExtractor Binarizer CastMap CategoryMapper DictVectorizer FeatureVectorizer Imputer LabelEncoder "
    "LinearClassifier LinearRegressor Normalizer OneHotEncoder SVMClassifier SVMRegressor Scaler TreeEnsemble "
    "TreeEnsembleClassifier TreeEnsembleRegressor ZipMap",
    "ai.onnx.ml",
)
_declare("training step", "Adagrad Adam Gradient Momentum", "ai.onnx.preview.training")
_declare("its score function is a graph", "FlexAttention", "ai.onnx.preview")

_declare("its decoder is a graph", "BeamSearch GreedySearch Sampling WhisperBeamSearch", "com.microsoft")
_declare("a compiled network", "EPContext Snpe", "com.microsoft")
_declare("reads a frequency axis as a whole", "Rfft Irfft DynamicTimeWarping", "com.microsoft")
_declare(
    "weights in a packed format",
    "DequantizeBFP QuantizeBFP DequantizeWithOrder QuantizeWithOrder GatherPacked MatMulBnb4 MatMulFpQ4 MatMulPacked "
    "MatMulBlockQuantizedFp4Weight MatMulBlockQuantizedFp8Weight MatMulNBitsMlp MatMulNBitsQLoRA MatMulNBitsQkv "
    "MoEPacked QOrderedAttention QOrderedGelu QOrderedLayerNormalization QOrderedLongformerAttention QOrderedMatMul",
    "com.microsoft",
)
_declare("its kernels take fixed widths only", "BiasAdd BiasSplitGelu", "com.microsoft")
_declare(
    "paged, sparse or replayed state",
    "ConvStateReplay DynamicSparseAttention GatedDeltaNet GatedDeltaNetStateReplay Mamba2Verify PagedAttention "
    "PackedSparseAttentionIndexer PackedSparseAttentionIndexerMerge SparseAttention SparseAttentionIndexer "
    "SparsePagedAttention VarlenCausalConvWithState",
    "com.microsoft",
)
_declare(
    "several layers in one operator",
    "AttnLSTM BiasSoftmax BranchwiseRMSNorm DecoderAttention DecoderMaskedSelfAttention EngramGate "
    "GatedRelativePositionBias GemmaRotaryEmbedding HyperConnectionLowRankMix HyperConnectionPostMix "
    "HyperConnectionPreMix LongformerAttention MRotaryEmbedding MoEGroupRouter "
    "QEmbedLayerNormalization RMSNormRotary RouterGateUpProj",
    "com.microsoft",
)
_declare("its mask is packed into bits", "BitmaskBiasDropout BitmaskDropout", "com.microsoft")
_declare("its result is one number for all", "IsAllFinite", "com.microsoft")
_declare("a sparse operand", "SparseToDenseMatMul", "com.microsoft")
_declare("its scales belong to the whole tensor", "GemmFloat8", "com.microsoft")

_BLOCKED = "laid out for one processor: prune the model before ONNX Runtime optimises it"
_declare(
    _BLOCKED,
    "AveragePool Conv GlobalAveragePool GlobalMaxPool MaxPool ReorderInput ReorderOutput Upsample",
    "com.microsoft.nchwc",
)
_declare(
    _BLOCKED,
    "AveragePool BatchNormalization Conv ConvTranspose DepthToSpace GlobalAveragePool GlobalLpPool GlobalMaxPool "
    "GridSample InstanceNormalization LRN LpPool MaxPool MaxUnpool QLinearAveragePool QLinearConv QLinearConvTranspose "
    "Resize SpaceToDepth",
    "com.ms.internal.nhwc",
)
