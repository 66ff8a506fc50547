"""Model families: the sizes of a model and the graphs that they imply."""
