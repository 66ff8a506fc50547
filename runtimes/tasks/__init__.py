"""The tasks of loaded models: one class for each task, over an engine's session."""
