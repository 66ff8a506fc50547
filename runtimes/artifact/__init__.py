"""The on-disk format of an artifact: manifest, graph signatures, checked files."""
