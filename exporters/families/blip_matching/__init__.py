"""The export of BLIP image-text matching."""
