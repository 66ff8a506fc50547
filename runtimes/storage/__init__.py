"""How bytes get to disk and into archives."""
