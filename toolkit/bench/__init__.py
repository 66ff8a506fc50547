"""Measure artifacts against the FP32 model: worker → records → report."""
