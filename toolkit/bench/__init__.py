"""Measure artifacts and the FP32 baseline, each in a process of its own."""
