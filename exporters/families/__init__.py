"""Model families: what the exporters must know about a kind of checkpoint."""
