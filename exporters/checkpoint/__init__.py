"""Open checkpoints and run their FP32 reference."""
