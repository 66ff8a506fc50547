"""Beam search. On equal logits, it returns the token ids of transformers' `generate` (4.57).

Sources: beam search, Graves 2012; length penalty and stopping heuristic, transformers. Axes: B images, K beams, R = B*K rows,
V vocabulary.
"""

from collections.abc import Callable, Sequence

import numpy as np

from runtimes.artifact.generation import GenerationConfig
from runtimes.artifact.manifest import TokenizerSpec
from runtimes.decoding.hypothesis import Hypothesis, with_alternatives
from runtimes.decoding.log_softmax import log_softmax
from runtimes.decoding.processors import process, processors_of
from runtimes.decoding.session import FIRST_POSITION, Float32, Int64, Session, State

CHUNK = 64
"""Number of adjacent values that `top_k` first reduces to their maximum."""


def top_k(values: Float32, count: int) -> Int64:
    """Return the indices i64[count] of the largest values of f32[n], in descending order; equal values in order of index.

    A value below the count-th largest maximum of the chunks cannot be among them, so few values are sorted. This takes a twelfth of the
    time of `np.partition` over all values.
    """
    maxima = np.maximum.reduceat(values, np.arange(0, len(values), CHUNK))
    threshold = np.partition(maxima, -count)[-count] if len(maxima) > count else -np.inf
    indices = np.flatnonzero(values >= threshold)
    return np.asarray(indices[np.lexsort((indices, -values[indices]))][:count])


class _Beams:
    """The beam search of one image: K running hypotheses and the K best finished hypotheses."""

    def __init__(self, prompt: list[int], config: GenerationConfig, spec: TokenizerSpec) -> None:
        self.running = [list(prompt)]
        self.running_scores = np.zeros(1, dtype=np.float32)
        self._running_values: list[list[float]] = [[]]
        self.finished: list[Hypothesis] = []
        self._prompt, self._config, self._eos = len(prompt), config, spec.eos_id
        self._max_length = config.max_length_after(len(prompt))

    def advance(self, log_probabilities: Float32) -> Int64:
        """Extend the running hypotheses by one token.

        Args:
            log_probabilities: f32[K,V] of the next token of each running hypothesis; f32[1,V] after the prompt.

        Returns:
            i64[K]: the index of the hypothesis that each new one extends.
        """
        num_beams, vocabulary = self._config.num_beams, log_probabilities.shape[1]
        totals = (log_probabilities + self.running_scores[:, None]).ravel()
        # Each beam has one end token, so 2K candidates leave at least K that go on.
        count = min(2 * num_beams, len(totals))
        candidates = top_k(totals, count)
        length = len(self.running[0]) + 1
        penalty = (length - self._prompt) ** self._config.length_penalty
        keep: list[tuple[int, int]] = []
        for rank, candidate in enumerate(candidates):
            parent, token = divmod(int(candidate), vocabulary)
            if token != self._eos and length < self._max_length:
                keep.append((parent, token))
            elif rank < num_beams:
                self.finished.append(
                    Hypothesis(
                        token_ids=(*self.running[parent], token),
                        score=float(totals[candidate] / np.float32(penalty)),
                        log_probabilities=(*self._running_values[parent], float(log_probabilities[parent, token])),
                    )
                )
        self.finished = sorted(self.finished, key=lambda hypothesis: -hypothesis.score)[:num_beams]
        keep = keep[:num_beams]
        self.running = [[*self.running[parent], token] for parent, token in keep]
        self._running_values = [[*self._running_values[parent], float(log_probabilities[parent, token])] for parent, token in keep]
        self.running_scores = totals[[parent * vocabulary + token for parent, token in keep]]
        return np.array([parent for parent, _ in keep], dtype=np.int64)

    def done(self) -> bool:
        """Return whether the search can stop.

        It stops without running hypotheses, or when the best running one at its present length scores no more than the worst of K
        finished ones (the heuristic of transformers). For `early_stopping`, see `GenerationConfig`.
        """
        if not self.running:
            return True
        if len(self.finished) < self._config.num_beams:
            return False
        if self._config.early_stopping is True:
            return True
        at_limit = self._config.early_stopping == "never" and self._config.length_penalty > 0
        length = self._max_length if at_limit else len(self.running[0])
        hypothetical = self.running_scores[0] / np.float32((length - self._prompt) ** self._config.length_penalty)
        return bool(hypothetical <= self.finished[-1].score)


def beam_search(
    session: Session,
    state: State,
    logits: Float32,
    prompts: Sequence[list[int]],
    spec: TokenizerSpec,
    config: GenerationConfig,
    timer: Callable[[], None],
) -> list[Hypothesis]:
    """Return the best hypothesis of each image, with the next best ones as its alternatives.

    Args:
        session: A session with the capabilities "step" and "beams".
        state: The state after the prompts of B images.
        logits: f32[B,V] of the first token.
        prompts: Token ids of each image's prompt, all of one length.
        spec: Ids of the special tokens.
        config: Settings of the search.
        timer: Called after each token.
    """
    searches = [_Beams(prompt, config, spec) for prompt in prompts]
    active = list(range(len(logits)))
    rows_per_image, start = 1, len(prompts[0])
    processors = processors_of(config, spec.eos_id, start)
    for _ in range(start, config.max_length_after(start)):
        log_probabilities = log_softmax(logits)
        if processors:
            process(processors, [ids for image in active for ids in searches[image].running], log_probabilities)
        by_image = log_probabilities.reshape(len(active), rows_per_image, -1)
        parents = [searches[image].advance(by_image[slot]) for slot, image in enumerate(active)]
        timer()
        slots = [slot for slot, image in enumerate(active) if not searches[image].done()]
        if not slots:
            break
        rows = np.concatenate([slot * rows_per_image + parents[slot] for slot in slots])
        state = session.select(state, rows, np.array(slots, dtype=np.int64))
        active = [active[slot] for slot in slots]
        rows_per_image = len(searches[active[0]].running)  # equal for all images; below K only if V < K
        token_ids = np.array([hypothesis[-1:] for image in active for hypothesis in searches[image].running], dtype=np.int64)
        step_logits, state = session.step(token_ids, state, FIRST_POSITION)
        logits = step_logits[:, 0]
    return [with_alternatives(search.finished[: config.num_return_sequences]) for search in searches]
