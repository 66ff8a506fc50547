"""Export checkpoints to artifacts on the build machine."""
