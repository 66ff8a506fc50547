"""Benchmark records: raw measurements as dataclasses and JSON lines."""
