"""Other people's ways to run the same checkpoint, measured beside our artifacts: transformers' variants and OpenVINO."""
