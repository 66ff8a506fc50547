"""Greedy and beam search over a session, and the tokenizer."""
