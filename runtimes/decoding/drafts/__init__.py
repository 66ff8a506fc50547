"""Drafts: tokens that n-grams predict, for greedy search to verify."""
