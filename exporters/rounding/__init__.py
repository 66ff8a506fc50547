"""The arithmetic of each number format: how weights and activations are rounded. Exporters, calibration, searches and training share it."""
