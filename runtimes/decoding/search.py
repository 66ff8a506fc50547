"""Greedy search, beam search and sampling over a session, in numpy.

On equal logits, the searches return the token ids of transformers' `generate` (4.57). Length counts, end of a caption, ranking of beams
and the stopping rule follow that function. Sources: beam search, Graves 2012; length penalty and stopping heuristic, transformers.

Axes: B images, K beams, R = B*K rows, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TypeAlias

import numpy as np

from runtimes.artifact.generation import GenerationConfig
from runtimes.artifact.manifest import TokenizerSpec
from runtimes.decoding.processors import process, processors_of
from runtimes.decoding.session import Float32, Inputs, Int64, LoopSession, Session, State

Prompts: TypeAlias = list[list[int]]

PhaseTimer: TypeAlias = Callable[[str, float], None]
"""Callback with a phase and its seconds. Phases: "read", "encode", "first_token", "token"; with a `LoopSession`: "read", "loop"."""

CHUNK = 64
"""Number of adjacent values that `top_k` first reduces to their maximum."""

FIRST_POSITION = np.array([0], dtype=np.int64)
"""Position of the new token in a step that feeds one token."""


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """A finished caption: its ids from the start token to the end token or the length limit, and its score."""

    token_ids: tuple[int, ...]
    score: float
    """Natural-log probability of the generated tokens / generated length ** length_penalty."""
    alternatives: tuple["Hypothesis", ...] = ()
    """Further hypotheses of the image, see `GenerationConfig.num_return_sequences`."""


def generate(
    session: Session,
    state: State,
    prompts: Int64,
    spec: TokenizerSpec,
    config: GenerationConfig,
    timer: PhaseTimer,
    image_keys: Sequence[int] = (),
) -> list[Hypothesis]:
    """Caption the B images of a state and return one hypothesis per image.

    Args:
        session: A session with the capability "step", and "beams" for a beam search.
        state: From `session.encode`; it must not be used afterwards.
        prompts: i64[B,T], the ids that each image's caption starts with, start token included. For prompts of different lengths see
            `run_by_length`.
        spec: Ids of the special tokens.
        config: Settings of the search.
        timer: Called with "first_token" and "token".
        image_keys: Sampling: a number per image that determines its random numbers, together with the seed.
    """
    started = perf_counter()
    logits, state = session.step(prompts, state, np.array([prompts.shape[1] - 1], dtype=np.int64))
    if config.do_sample:
        return _sample(session, state, logits[:, 0], prompts.tolist(), spec, config, _TokenTimer(timer, started), image_keys)
    search = _greedy if config.num_beams == 1 else _beam
    return search(session, state, logits[:, 0], prompts.tolist(), spec, config, _TokenTimer(timer, started))


def run_by_length(prompts: Sequence[Sequence[int]], run: Callable[[Int64 | slice, Int64], list[Hypothesis]]) -> list[Hypothesis]:
    """Call `run` once per prompt length and return one hypothesis per prompt. Prompts of one length need no attention mask.

    Args:
        prompts: Ids of each image's prompt.
        run: Called with the indices i64[n] of images and their prompts i64[n,T]; returns their captions.
    """
    lengths = np.array([len(prompt) for prompt in prompts])
    if (lengths == lengths[0]).all():
        return run(slice(None), np.array(prompts, dtype=np.int64))
    best: dict[int, Hypothesis] = {}
    for length in np.unique(lengths):
        indices = np.flatnonzero(lengths == length)
        group = np.array([prompts[index] for index in indices.tolist()], dtype=np.int64)
        best |= zip(indices.tolist(), run(indices, group), strict=True)
    return [best[index] for index in range(len(prompts))]


def run_loop(
    loop: LoopSession, inputs: Inputs, prompts: Int64, spec: TokenizerSpec, config: GenerationConfig, timer: PhaseTimer
) -> list[Hypothesis]:
    """Caption B images with a `LoopSession`: greedy search as in `generate`, from pixels.

    Args:
        loop: The session. It takes one prompt per call, so images with different prompts run one by one.
        inputs: {"pixels": f32[B,3,S,S]}.
        prompts: i64[B,T].
        spec: Ids of the special tokens.
        config: Lengths and length penalty; `num_beams` is 1.
        timer: Called with "loop".
    """
    prompt = prompts[0]
    if (prompts != prompt).any():
        singles = ({name: array[image : image + 1] for name, array in inputs.items()} for image in range(len(prompts)))
        return [run_loop(loop, single, prompts[i : i + 1], spec, config, timer)[0] for i, single in enumerate(singles)]
    started = perf_counter()
    rows, scores = loop.caption(inputs, prompt, config.min_length, config.max_length_after(len(prompt)))
    timer("loop", perf_counter() - started)
    hypotheses = []
    for row, score in zip(rows, scores, strict=True):
        ends = np.flatnonzero(row[len(prompt) :] == spec.eos_id)
        generated = int(ends[0]) + 1 if len(ends) else len(row) - len(prompt)
        token_ids = tuple(int(token) for token in row[: len(prompt) + generated])
        hypotheses.append(Hypothesis(token_ids=token_ids, score=float(score) / generated**config.length_penalty))
    return hypotheses


class _TokenTimer:
    """Report the seconds of each token. Those of the first token start when the prompt is fed."""

    def __init__(self, timer: PhaseTimer, started: float) -> None:
        self._report, self._started, self._phase = timer, started, "first_token"

    def __call__(self) -> None:
        now = perf_counter()
        self._report(self._phase, now - self._started)
        self._started, self._phase = now, "token"


def log_softmax(logits: Float32) -> Float32:
    """Return natural-log probabilities f32[..., V] of logits f32[..., V]."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return np.asarray(shifted)


def _greedy(
    session: Session, state: State, logits: Float32, prompts: Prompts, spec: TokenizerSpec, config: GenerationConfig, timer: _TokenTimer
) -> list[Hypothesis]:
    sequences, start = [list(prompt) for prompt in prompts], len(prompts[0])
    scores = np.zeros(len(logits), dtype=np.float32)
    active = np.arange(len(logits))
    processors, max_length = processors_of(config, spec.eos_id, start), config.max_length_after(start)
    for length in range(start + 1, max_length + 1):
        normalizer = _log_sum_exp(logits)
        chosen_from = logits
        if processors:  # the score is the model's own probability, so its logits stay
            chosen_from = logits.copy()
            process(processors, [sequences[image] for image in active], chosen_from)
        best = chosen_from.argmax(axis=-1)
        scores[active] += logits[np.arange(len(best)), best] - normalizer
        for image, token in zip(active, best, strict=True):
            sequences[image].append(int(token))
        timer()
        running = np.flatnonzero(best != spec.eos_id)
        if len(running) == 0 or length == max_length:
            break
        if len(running) < len(active):
            state = session.select(state, running, running)
            active, best = active[running], best[running]
        step_logits, state = session.step(best[:, None].astype(np.int64), state, FIRST_POSITION)
        logits = step_logits[:, 0]
    generated = [len(sequence) - start for sequence in sequences]
    return [
        Hypothesis(token_ids=tuple(sequence), score=float(score) / count**config.length_penalty)
        for sequence, score, count in zip(sequences, scores, generated, strict=True)
    ]


def _log_sum_exp(logits: Float32) -> Float32:
    """Return the log of the sum of exponentials f32[R] of logits f32[R,V]."""
    top = logits.max(axis=-1)
    return np.asarray(top + np.log(np.exp(logits - top[:, None]).sum(axis=-1)), dtype=np.float32)


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
        self.finished: list[tuple[float, list[int]]] = []
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
        keep: list[int] = []
        for rank, candidate in enumerate(candidates):
            parent, token = divmod(int(candidate), vocabulary)
            if token != self._eos and length < self._max_length:
                keep.append(int(candidate))
            elif rank < num_beams:
                self.finished.append((float(totals[candidate] / np.float32(penalty)), [*self.running[parent], token]))
        self.finished = sorted(self.finished, key=lambda entry: -entry[0])[:num_beams]
        keep = keep[:num_beams]
        parents = np.array([candidate // vocabulary for candidate in keep], dtype=np.int64)
        self.running = [[*self.running[parent], candidate % vocabulary] for parent, candidate in zip(parents, keep, strict=True)]
        self.running_scores = totals[keep]
        return parents

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
        return bool(hypothetical <= self.finished[-1][0])


def _beam(
    session: Session, state: State, logits: Float32, prompts: Prompts, spec: TokenizerSpec, config: GenerationConfig, timer: _TokenTimer
) -> list[Hypothesis]:
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
    best = [search.finished[: config.num_return_sequences] for search in searches]
    return [_with_alternatives([Hypothesis(token_ids=tuple(ids), score=score) for score, ids in ranked]) for ranked in best]


def _with_alternatives(hypotheses: list[Hypothesis]) -> Hypothesis:
    return replace(hypotheses[0], alternatives=tuple(hypotheses[1:]))


def _sample(
    session: Session,
    state: State,
    logits: Float32,
    prompts: Prompts,
    spec: TokenizerSpec,
    config: GenerationConfig,
    timer: _TokenTimer,
    image_keys: Sequence[int],
) -> list[Hypothesis]:
    """Draw `num_return_sequences` captions per image. The rows of an image stay together, so a row that ended repeats the end token."""
    count, start = config.num_return_sequences, len(prompts[0])
    if count > 1:
        rows = np.repeat(np.arange(len(prompts)), count)
        state, logits = session.select(state, rows, np.arange(len(prompts))), logits[rows]
    sequences = [list(prompt) for prompt in prompts for _ in range(count)]
    # A row has its own generator, so that its caption does not depend on other rows, on the batch or on where others end.
    seeds = [None if config.seed is None else [config.seed, key, number] for key in image_keys for number in range(count)]
    generators = [np.random.default_rng(seed) for seed in seeds]
    scores, generated = np.zeros(len(sequences), dtype=np.float32), np.zeros(len(sequences), dtype=np.int64)
    ended, active = np.zeros(len(sequences), dtype=bool), np.arange(len(prompts))
    processors, max_length = processors_of(config, spec.eos_id, start), config.max_length_after(start)
    for length in range(start + 1, max_length + 1):
        rows = (active[:, None] * count + np.arange(count)).ravel()
        normalizer, processed = _log_sum_exp(logits), logits.copy()
        process(processors, [sequences[row] for row in rows], processed)
        tokens = np.array([spec.eos_id if ended[row] else _draw(processed[i], generators[row]) for i, row in enumerate(rows)])
        live = ~ended[rows]
        scores[rows[live]] += (logits[np.arange(len(rows)), tokens] - normalizer)[live]
        generated[rows[live]] += 1
        for row, token in zip(rows, tokens, strict=True):
            sequences[row].append(int(token))
        ended[rows] |= tokens == spec.eos_id
        timer()
        running = np.flatnonzero(~ended.reshape(-1, count)[active].all(axis=1))
        if len(running) == 0 or length == max_length:
            break
        if len(running) < len(active):
            state = session.select(state, (running[:, None] * count + np.arange(count)).ravel(), running)
            active, tokens = active[running], tokens.reshape(-1, count)[running].ravel()
        step_logits, state = session.step(tokens[:, None].astype(np.int64), state, FIRST_POSITION)
        logits = step_logits[:, 0]
    hypotheses = [
        Hypothesis(token_ids=tuple(ids[: start + number]), score=float(score) / int(number) ** config.length_penalty)
        for ids, score, number in zip(sequences, scores, generated, strict=True)
    ]
    return [_with_alternatives(hypotheses[first : first + count]) for first in range(0, len(hypotheses), count)]


def _draw(scores: Float32, generator: np.random.Generator) -> int:
    """Return a token drawn from the softmax of scores f32[V]."""
    cumulative = np.exp((scores - scores.max()).astype(np.float64)).cumsum()
    return int(np.searchsorted(cumulative, generator.random() * cumulative[-1], side="right"))
