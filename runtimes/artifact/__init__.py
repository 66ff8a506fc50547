"""The on-disk format of an artifact: manifest and verified files."""
