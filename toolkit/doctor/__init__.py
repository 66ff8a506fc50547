"""Check whether this machine can run engines, recipes and artifacts: facts, problems and remedies."""
