"""Model families: the sizes of a model and the signatures of its graphs."""
