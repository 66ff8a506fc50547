"""One file per command of the toolkit: options, one call into library code, echo."""
