"""Run artifacts with ONNX Runtime."""
