"""Whether this machine can caption, and with what: facts, what of the installed is too old, and what an artifact lacks here."""
