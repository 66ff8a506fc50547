"""ONNX graphs: exported, quantized, stored."""
