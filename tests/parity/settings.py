"""Decoding settings that are compared with transformers. This module works without pytest, for `tests.parity.campaign`."""

from collections.abc import Sequence
from typing import Any, TypeAlias

Settings: TypeAlias = dict[str, Any]


def single_settings(words: Sequence[int], eos: int) -> list[Settings]:
    """Return settings of greedy and beam search.

    Args:
        words: Nine token ids to ban, those that the model generates often.
        eos: The end token.
    """
    a, b, c, *suppressed, d, e = words
    return [
        {"repetition_penalty": 1.5},
        {"repetition_penalty": 0.7},
        {"no_repeat_ngram_size": 1},
        {"no_repeat_ngram_size": 2},
        {"no_repeat_ngram_size": 3},
        {"bad_words_ids": [[a], [b, c], [eos]]},
        {"suppress_tokens": list(suppressed)},
        {"max_new_tokens": 5},
        {"max_new_tokens": 5, "max_length": 9},
        {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "min_length": 9},
        {"repetition_penalty": 1.2, "suppress_tokens": [eos], "max_length": 14},
        {"no_repeat_ngram_size": 2, "bad_words_ids": [[d]], "suppress_tokens": [e], "max_new_tokens": 12, "min_length": 6},
    ]


BEAM_SETTINGS: list[Settings] = [
    {"early_stopping": True},
    {"early_stopping": "never"},
    {"early_stopping": "never", "length_penalty": 2.0},
    {"early_stopping": True, "length_penalty": -1.0, "repetition_penalty": 1.4},
    {"early_stopping": "never", "no_repeat_ngram_size": 2, "length_penalty": 0.0},
]
SAMPLING_SETTINGS: list[Settings] = [
    {"top_k": 0},
    {"top_k": 5},
    {"top_k": 0, "top_p": 0.7},
    {"temperature": 0.6, "top_k": 20, "top_p": 0.9},
    {"temperature": 1.8, "top_k": 0, "top_p": 0.95, "repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "min_length": 8},
]


def search_settings(words: Sequence[int], eos: int) -> list[Settings]:
    """Return the settings of `single_settings` with one beam and with three, and those of beams; see there."""
    cases = [{"num_beams": beams, **settings} for settings in single_settings(words, eos) for beams in (1, 3)]
    return cases + [{"num_beams": 3, **settings} for settings in BEAM_SETTINGS]
