"""Subprocesses that caption images, and their supervisor."""
