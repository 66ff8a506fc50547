"""Which ONNX operators a graph may hold: those that the exporters of this toolkit write. Nothing else is ever run.

A change of the table is a change of what devices accept: raise `VERSION` and add a line to the history.
"""

VERSION = 1
# History. 1 (2026-11): first; the exporters' graphs after ONNX Runtime 1.27 to 1.32 at level EXTENDED.

STANDARD = "ai.onnx"
"""The domain that a graph leaves empty."""

OPERATORS = {
    STANDARD: (
        "Add And ArgMax Cast Concat Constant ConstantOfShape Conv Div DynamicQuantizeLinear Equal Erf Expand Gather "
        "GatherElements Identity LayerNormalization Less LessOrEqual LogSoftmax MatMul MatMulInteger Mul Not Or Range ReduceMin "
        "Relu Reshape Shape Sigmoid Size Slice Softmax Split Squeeze Sub Tanh Transpose Unsqueeze Where"
    ),
    "com.microsoft": (
        "BiasGelu DynamicQuantizeMatMul FusedMatMul GatherBlockQuantized Gelu MatMulIntegerToFloat MatMulNBits MultiHeadAttention "
        "SkipLayerNormalization"
    ),
}
"""Domain → operators that every contract may hold."""

LOOP = "Loop"
"""The one standard operator with a subgraph; only a graph of contract `single/1` may hold it."""

LEAST_INPUTS = {
    "DynamicQuantizeMatMul": 3,
    "FusedMatMul": 2,
    "GatherBlockQuantized": 3,
    "MatMulIntegerToFloat": 4,
    "MatMulNBits": 3,
    "MultiHeadAttention": 3,
    "SkipLayerNormalization": 3,
}
"""Operator of onnxruntime's own → how many inputs it has at least: `MultiHeadAttention` with two ended the process (1.32)."""
