"""Group the operators of onnxruntime and torch into classes."""

from collections.abc import Mapping

BETWEEN = "-"
"""Key of the time that a run spends outside its operators."""

CLASSES: dict[str, tuple[str, ...]] = {
    "integer products": (
        *("DynamicQuantizeMatMul", "MatMulIntegerToFloat", "MatMulInteger", "MatMulNBits", "QLinearMatMul", "QGemm", "ConvInteger"),
        *("quantized::linear_dynamic", "quantized::linear", "onednn::qlinear_pointwise"),
    ),
    "float products": (
        *("MatMul", "FusedMatMul", "Gemm", "FusedGemm", "Conv", "FusedConv", "NhwcFusedConv", "Attention", "MultiHeadAttention"),
        *("GroupQueryAttention", "DecoderMaskedMultiHeadAttention"),
        *("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::mkldnn_convolution", "aten::convolution", "aten::_convolution"),
        *("aten::thnn_conv2d", "aten::_slow_conv2d_forward", "aten::_scaled_dot_product_flash_attention_for_cpu"),
    ),
    "quantizing": ("DynamicQuantizeLinear", "QuantizeLinear", "DequantizeLinear", "aten::quantize_per_tensor", "aten::dequantize"),
    "normalisation": (
        *("LayerNormalization", "SkipLayerNormalization", "EmbedLayerNormalization", "SimplifiedLayerNormalization"),
        *("aten::layer_norm", "aten::native_layer_norm"),
    ),
    "activation": (
        *("Gelu", "BiasGelu", "FastGelu", "QuickGelu", "Erf", "Relu", "Tanh", "Sigmoid", "Softmax"),
        *("aten::gelu", "aten::relu", "aten::softmax", "aten::_softmax"),
    ),
    "copies": (
        *("Transpose", "Concat", "Reshape", "Split", "Slice", "Squeeze", "Unsqueeze", "Expand", "Identity", "Cast", "Tile", "Pad"),
        *("ReorderInput", "ReorderOutput", "MemcpyFromHost", "MemcpyToHost"),
        *("aten::copy_", "aten::cat", "aten::clone", "aten::contiguous", "aten::to", "aten::_to_copy", "aten::empty_strided"),
        *("aten::view", "aten::reshape", "aten::transpose", "aten::permute", "aten::unflatten", "aten::expand", "aten::as_strided"),
        *("aten::slice", "aten::select", "aten::split", "aten::chunk", "aten::unsqueeze", "aten::narrow"),
    ),
    "lookup": ("Gather", "GatherBlockQuantized", "aten::embedding", "aten::index", "aten::index_select"),
    "additions": ("Add", "Sub", "Mul", "Div", "aten::add", "aten::add_", "aten::sub", "aten::mul", "aten::mul_", "aten::div"),
    "between operators": (BETWEEN,),
}
"""Class → operators of onnxruntime and of torch."""

OTHER = "other"

_CLASS_OF = {operator: name for name, operators in CLASSES.items() for operator in operators}


def by_class(seconds: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Group operator → seconds by class; slowest class first, slowest operator of a class first."""
    classes: dict[str, dict[str, float]] = {}
    for operator in sorted(seconds, key=lambda operator: -seconds[operator]):
        classes.setdefault(_CLASS_OF.get(operator, OTHER), {})[operator] = seconds[operator]
    return dict(sorted(classes.items(), key=lambda item: -sum(item[1].values())))
