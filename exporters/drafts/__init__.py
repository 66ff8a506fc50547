"""The draft table of an artifact: made from captions at export, measured on the gate's images."""
