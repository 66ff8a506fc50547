"""Compute with the rounding errors of an artifact in the FP32 torch module, without an export."""
