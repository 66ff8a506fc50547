"""Processors of scores before a token is chosen, in numpy and in the order of transformers (`GenerationMixin._get_logits_processor`, 4.57).

Axes: R rows, V vocabulary.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

import numpy as np

from runtimes.artifact.generation import GenerationConfig
from runtimes.decoding.session import Float32

Sequences: TypeAlias = Sequence[Sequence[int]]
"""Token ids of each row's text so far, prompt included. All rows have the same length."""
Processor: TypeAlias = Callable[[Sequences, Float32], None]
"""Modifies scores f32[R,V] in place: logits in greedy search, log-probabilities in beam search."""


def processors_of(config: GenerationConfig, eos_id: int, prompt: int) -> tuple[Processor, ...]:
    """Return the processors of the settings that have an effect, in order of application.

    Args:
        config: The settings.
        eos_id: Id of the end token.
        prompt: Number of tokens of the prompt, start token included.
    """
    processors: list[Processor] = []
    if config.repetition_penalty != 1.0:
        processors.append(partial(_penalize_repetition, np.float32(config.repetition_penalty)))
    if config.no_repeat_ngram_size > 0:
        processors.append(partial(_ban_repeated_ngrams, config.no_repeat_ngram_size))
    if words := [word for word in config.bad_words_ids if word != (eos_id,)]:
        processors.append(partial(_ban_words, words))
    if config.min_length > prompt:
        processors.append(partial(_ban_early_end, config.min_length, eos_id))
    if config.suppress_tokens:
        processors.append(partial(_suppress, list(config.suppress_tokens)))
    if config.do_sample and config.temperature != 1.0:
        processors.append(partial(_apply_temperature, np.float32(config.temperature)))
    if config.do_sample and config.top_k > 0:
        processors.append(partial(_keep_top_k, config.top_k))
    if config.do_sample and config.top_p < 1.0:
        processors.append(partial(_keep_top_p, config.top_p))
    return tuple(processors)


def process(processors: Sequence[Processor], sequences: Sequences, scores: Float32) -> None:
    """Apply processors in order, in place.

    Args:
        processors: From `processors_of`.
        sequences: Token ids of each row.
        scores: f32[R,V].
    """
    for processor in processors:
        processor(sequences, scores)


def _penalize_repetition(penalty: np.float32, sequences: Sequences, scores: Float32) -> None:
    ids = np.array(sequences, dtype=np.int64)
    values = np.take_along_axis(scores, ids, axis=1)
    np.put_along_axis(scores, ids, np.where(values < 0, values * penalty, values / penalty), axis=1)


def _ban_repeated_ngrams(size: int, sequences: Sequences, scores: Float32) -> None:
    for row, ids in enumerate(sequences):
        prefix = list(ids[len(ids) - size + 1 :])
        starts = range(len(ids) - size + 1)
        scores[row, [ids[start + size - 1] for start in starts if list(ids[start : start + size - 1]) == prefix]] = -np.inf


def _ban_words(words: Sequence[Sequence[int]], sequences: Sequences, scores: Float32) -> None:
    """Ban the last token of each word whose other tokens end the text. A word longer than the text is not checked, as in transformers."""
    for row, ids in enumerate(sequences):
        banned = [
            word[-1] for word in words if len(word) == 1 or (len(word) <= len(ids) and tuple(ids[1 - len(word) :]) == tuple(word[:-1]))
        ]
        scores[row, banned] = -np.inf


def _ban_early_end(min_length: int, eos_id: int, sequences: Sequences, scores: Float32) -> None:
    if len(sequences[0]) < min_length:
        scores[:, eos_id] = -np.inf


def _suppress(tokens: list[int], sequences: Sequences, scores: Float32) -> None:
    scores[:, tokens] = -np.inf


def _apply_temperature(temperature: np.float32, sequences: Sequences, scores: Float32) -> None:
    scores /= temperature


def _keep_top_k(count: int, sequences: Sequences, scores: Float32) -> None:
    if count < scores.shape[1]:
        scores[scores < np.partition(scores, -count, axis=1)[:, -count, None]] = -np.inf


def _keep_top_p(mass: float, sequences: Sequences, scores: Float32) -> None:
    """Exclude the least probable tokens whose probabilities sum to at most 1 - mass; the most probable token stays."""
    order = np.argsort(scores, axis=1, kind="stable")
    ascending = np.take_along_axis(scores, order, axis=1)
    probabilities = np.exp(ascending - ascending[:, -1:])
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    excluded = probabilities.cumsum(axis=1) <= 1 - mass
    excluded[:, -1] = False
    np.put_along_axis(scores, order, np.where(excluded, np.float32(-np.inf), ascending), axis=1)
