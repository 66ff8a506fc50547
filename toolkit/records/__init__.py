"""Benchmark records: data without statistics."""
