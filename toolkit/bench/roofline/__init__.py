"""A model's minimum work and a machine's maximum throughput (roofline model)."""
