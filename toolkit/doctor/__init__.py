"""Whether this machine can caption, and with what: facts, known holes of what is installed, and what an artifact lacks here."""
