"""Photographs that a quantizer may calibrate on: none of them is a sample image, so the gate and the benchmark never see them."""
