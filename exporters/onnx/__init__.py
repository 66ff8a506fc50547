"""Export, quantize and store ONNX graphs."""
