"""Supervised processes that caption images."""
