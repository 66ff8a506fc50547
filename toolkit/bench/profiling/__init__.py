"""Where the time of a run goes, operator by operator."""
