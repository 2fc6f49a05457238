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

_declare(
    _POSITIONS,
    "nonzero nonzero_numpy nonzero_static argwhere where.default bincount unique_dim unique_consecutive "
    "unique_dim_consecutive _unique _unique2 multinomial combinations",
    "aten",
)
_declare("its result is chosen at run time", "masked_select masked_scatter put repeat_interleave.Tensor", "aten")
_declare(
    "its strides are spelled",
    "as_strided as_strided_copy as_strided_scatter empty_strided new_empty_strided empty_permuted",
    "aten",
)
_declare("gives a tensor another storage or size", "set resize resize_as", "aten")
_declare("a diagonal over both axes", "diag diag_embed diagflat diagonal_scatter trace", "aten")
_declare("its result is a number or one for all", "item _local_scalar_dense is_nonzero equal allclose", "aten")
_declare("runs at the places of a tensor", "tensor_split.tensor_indices_or_sections segment_reduce", "aten")
_declare("places count over the whole tensor", "max_unpool2d max_unpool3d", "aten")
_declare(_POSITIONS, "nms", "torchvision")
_declare("a score map for each place of a region", "ps_roi_align ps_roi_pool", "torchvision")

_declare(
    "its body is a graph that runs many times",
    "scan map_impl while_loop while_loop_stack_output associative_scan foreach_map",
    "higher_order",
)
_declare("its score function is a graph", "flex_attention flex_attention_backward", "higher_order")
_declare(
    "a program of another compiler",
    "triton_kernel_wrapper_functional triton_kernel_wrapper_mutation inductor_compiled_code inline_asm_elementwise "
    "executorch_call_delegate aoti_call_delegate call_torchbind invoke_leaf_function",
    "higher_order",
)
_declare(
    "a region that is not read",
    "auto_functionalized auto_functionalized_v2 autograd_function_apply custom_function_call strict_mode "
    "run_const_graph run_and_save_rng_state run_with_rng_state graphsafe_run_with_rng_state out_dtype invoke_quant "
    "invoke_quant_packed local_map_hop flat_apply with_effects wrap wrap_activation_checkpoint print",
    "higher_order",
)

_declare("inside vmap", "_add_batch_dim _remove_batch_dim", "torch._functorch.predispatch")

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
