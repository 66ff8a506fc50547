"""Two files of benchmark records against each other: pairs of cases → changes with intervals → words, and limits that may fail."""
