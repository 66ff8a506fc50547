"""Mixed precision: a format for each layer, chosen by its estimated effect on drift."""
