"""Caption a data set in shards, on one machine or on several, with one row per input."""
