"""The ONNX operators that a graph may contain: those that the exporters of this toolkit write. Graphs with other operators are refused.

The table decides which artifacts devices accept. After a change, raise `VERSION` and add a line to the history.
"""

VERSION = 2
# History: 1 (2026-11): first version; graphs of the exporters after the optimizers of ONNX Runtime 1.27 to 1.32 at level EXTENDED.
# 2 (2026-11): ReduceL2, which normalizes the embeddings of matchers.

STANDARD = "ai.onnx"
"""Name of the standard domain. In a graph, its name is the empty string."""

OPERATORS = {
    STANDARD: (
        "Add And ArgMax Cast Concat Constant ConstantOfShape Conv Div DynamicQuantizeLinear Equal Erf Expand Gather "
        "GatherElements Identity LayerNormalization Less LessOrEqual LogSoftmax MatMul MatMulInteger Mul Not Or Range ReduceL2 ReduceMin "
        "Relu Reshape Shape Sigmoid Size Slice Softmax Split Squeeze Sub Tanh Transpose Unsqueeze Where"
    ),
    "com.microsoft": (
        "BiasGelu DynamicQuantizeMatMul FusedMatMul GatherBlockQuantized Gelu MatMulIntegerToFloat MatMulNBits MultiHeadAttention "
        "SkipLayerNormalization"
    ),
}
"""Domain → operators that graphs of all contracts may contain."""

LOOP = "Loop"
"""The only operator with a subgraph. Only graphs of contract `single/1` may contain it."""

LEAST_INPUTS = {
    "DynamicQuantizeMatMul": 3,
    "FusedMatMul": 2,
    "GatherBlockQuantized": 3,
    "MatMulIntegerToFloat": 4,
    "MatMulNBits": 3,
    "MultiHeadAttention": 3,
    "SkipLayerNormalization": 3,
}
"""Operator of onnxruntime → least number of inputs. With two inputs, `MultiHeadAttention` crashed the process (onnxruntime 1.32)."""
