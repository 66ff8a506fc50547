"""Atomic writes and archives."""
