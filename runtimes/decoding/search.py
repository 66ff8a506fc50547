"""Generate texts with the search that the settings select: greedy search, which is in this module, beam search or sampling. In numpy.

On equal logits, greedy and beam search return the token ids of transformers' `generate` (4.57). Length counts, end of a caption, ranking
of beams and the stopping rule follow that function.

Axes: B images, R rows, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import TypeAlias

import numpy as np

from runtimes.artifact.generation import GenerationConfig
from runtimes.artifact.manifest import TokenizerSpec
from runtimes.decoding.beam_search import beam_search
from runtimes.decoding.drafted_search import drafted_search
from runtimes.decoding.drafts.drafter import Drafter
from runtimes.decoding.hypothesis import Hypothesis, Texts, with_alternatives
from runtimes.decoding.log_softmax import log_sum_exp
from runtimes.decoding.processors import process, processors_of
from runtimes.decoding.sampling import sample
from runtimes.decoding.session import FIRST_POSITION, Float32, Inputs, Int64, LoopSession, Session, State

PhaseTimer: TypeAlias = Callable[[str, float], None]
"""Callback with a phase and its seconds. Phases: "read", "encode", "first_token", "token"; with a `LoopSession`: "read", "loop".

The phase "step" has the seconds of one step of the decoder. They are also counted in the phases of its tokens. A step makes one token per
text; with drafts, it may make any number.
"""


def generate(
    session: Session,
    state: State,
    prompts: Int64,
    spec: TokenizerSpec,
    config: GenerationConfig,
    timer: PhaseTimer,
    image_keys: Sequence[int] = (),
    drafter: Drafter | None = None,
) -> list[Hypothesis]:
    """Caption the B images of a state and return one hypothesis per image.

    Args:
        session: A session with the capability "step", and "beams" for a beam search.
        state: From `session.encode`; it must not be used afterwards.
        prompts: i64[B,T], the ids that each image's caption starts with, start token included. Use `by_length` for prompts of different
            lengths.
        spec: Ids of the special tokens.
        config: Settings of the search.
        timer: Called with "first_token", "token" and "step".
        image_keys: Sampling: a number per image that determines its random numbers, together with the seed.
        drafter: Proposes tokens in greedy search of one image; the search verifies them. None: no drafts.
    """
    token_timer = _TokenTimer(timer, perf_counter())
    if config.num_beams > 1:
        logits, state = _feed(session, prompts, state)
        return beam_search(session, state, logits, prompts.tolist(), spec, config, token_timer)
    count = config.num_return_sequences
    texts = Texts(np.repeat(prompts, count, axis=0).tolist())
    for tokens in _extend(session, state, prompts, texts, spec, config, image_keys, drafter):
        token_timer(tokens)
    _learn(drafter, texts, prompts.shape[1], config)
    hypotheses = texts.hypotheses(config.length_penalty)
    return [with_alternatives(hypotheses[first : first + count]) for first in range(0, len(hypotheses), count)]


def generate_tokens(
    session: Session,
    state: State,
    prompt: Int64,
    spec: TokenizerSpec,
    config: GenerationConfig,
    image_key: int,
    drafter: Drafter | None = None,
) -> Iterator[tuple[int, float]]:
    """Caption one image by greedy search or sampling, and yield each token's id and log-probability when it is chosen.

    Args:
        session: See `generate`.
        state: Of one image.
        prompt: i64[1,T].
        spec: Ids of the special tokens.
        config: Settings of the search, without beams and with one caption per image.
        image_key: See `generate`.
        drafter: See `generate`. The tokens of one step are yielded together.
    """
    texts = Texts(prompt.tolist())
    for tokens in _extend(session, state, prompt, texts, spec, config, [image_key], drafter):
        new = slice(len(texts.ids[0]) - tokens, None)
        yield from zip(texts.ids[0][new], texts.log_probabilities[0][-tokens:] if tokens else [], strict=True)
    _learn(drafter, texts, prompt.shape[1], config)


def _feed(session: Session, prompts: Int64, state: State) -> tuple[Float32, State]:
    """Return the logits f32[B,V] after prompts i64[B,T], and the next state."""
    logits, state = session.step(prompts, state, np.array([prompts.shape[1] - 1], dtype=np.int64))
    return logits[:, 0], state


def _extend(
    session: Session,
    state: State,
    prompts: Int64,
    texts: Texts,
    spec: TokenizerSpec,
    config: GenerationConfig,
    image_keys: Sequence[int],
    drafter: Drafter | None,
) -> Iterator[int]:
    """Extend the texts by greedy search or sampling, and yield the number of new tokens of each text after each step."""
    if drafter is not None and len(prompts) == 1 and not config.do_sample:
        return drafted_search(session, state, texts, spec, config, drafter)
    logits, state = _feed(session, prompts, state)
    if config.do_sample:
        return sample(session, state, logits, texts, spec, config, image_keys)
    return _greedy(session, state, logits, texts, spec, config)


def _learn(drafter: Drafter | None, texts: Texts, start: int, config: GenerationConfig) -> None:
    """Let a drafter learn from finished greedy captions."""
    if drafter is not None and not config.do_sample:
        for ids in texts.ids:
            drafter.learn(ids, start)


def _greedy(session: Session, state: State, logits: Float32, texts: Texts, spec: TokenizerSpec, config: GenerationConfig) -> Iterator[int]:
    """Append the most probable token to each text until it ends, and yield 1 after each token."""
    active, start = np.arange(len(logits)), len(texts.ids[0])
    processors, max_length = processors_of(config, spec.eos_id, start), config.max_length_after(start)
    for length in range(start + 1, max_length + 1):
        chosen_from = logits
        if processors:  # scores are probabilities of the model itself, so processors change a copy
            chosen_from = logits.copy()
            process(processors, [texts.ids[image] for image in active], chosen_from)
        best = chosen_from.argmax(axis=-1)
        texts.append(active, best, logits[np.arange(len(best)), best] - log_sum_exp(logits))
        yield 1
        running = np.flatnonzero(best != spec.eos_id)
        if len(running) == 0 or length == max_length:
            return
        if len(running) < len(active):
            state = session.select(state, running, running)
            active, best = active[running], best[running]
        step_logits, state = session.step(best[:, None].astype(np.int64), state, FIRST_POSITION)
        logits = step_logits[:, 0]


def by_length(sequences: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], Int64]]:
    """Group sequences by length: yield the indices and the ids i64[n,T] of each group. Equal lengths need no attention mask."""
    for length in sorted({len(ids) for ids in sequences}):
        indices = [index for index, ids in enumerate(sequences) if len(ids) == length]
        yield indices, np.array([sequences[index] for index in indices], dtype=np.int64)


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
    """Report the seconds of each token. The time of the first token includes the prompt."""

    def __init__(self, timer: PhaseTimer, started: float) -> None:
        self._report, self._started, self._step_started, self._phase = timer, started, started, "first_token"

    def __call__(self, tokens: int = 1) -> None:
        """Report a step. Its tokens have equal shares of the seconds since the last token."""
        now = perf_counter()
        for _ in range(tokens):
            self._report(self._phase, (now - self._started) / tokens)
            self._phase = "token"
        self._report("step", now - self._step_started)
        self._step_started = now
        if tokens:
            self._started = now
