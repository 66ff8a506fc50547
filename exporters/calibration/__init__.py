"""Photographs for the calibration of quantizers. None is a sample image, so they are not used by the gate or the benchmark."""
