"""The settings of a search: the `defaults` of a manifest, overridden by the arguments of a caller."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from typing import Literal, TypedDict

STEPWISE_SETTINGS = (
    *("repetition_penalty", "no_repeat_ngram_size", "bad_words_ids", "suppress_tokens"),
    *("do_sample", "num_return_sequences"),
)
"""Settings that need the logits of each step. A single graph applies the others, except beams."""


SAMPLING_SETTINGS = ("do_sample", "temperature", "top_k", "top_p", "seed", "num_return_sequences")
"""Settings of sampling, and the number of captions. A benchmark has none of them, see `GenerationConfig.deterministic`."""


SMALLEST = 1e-6
"""Of a temperature and of a penalty. With much smaller ones, scores would overflow float32."""

PLAIN_TYPES: Mapping[object, tuple[type, type, str]] = {
    int: (Integral, int, "an integer"),
    int | None: (Integral, int, "an integer"),
    float: (Real, float, "a number"),
    bool: (bool, bool, "True or False"),
}
"""Type of a field → the values that are accepted (those of numpy, too), what they become, and its words in messages."""


class GenerationOptions(TypedDict, total=False):
    """Arguments of `Captioner.caption` that replace a field of the artifact's `GenerationConfig`. None keeps the artifact's setting."""

    num_beams: int | None
    min_length: int | None
    max_length: int | None
    max_new_tokens: int | None
    length_penalty: float | None
    early_stopping: Literal[False, True, "never"] | None
    repetition_penalty: float | None
    no_repeat_ngram_size: int | None
    bad_words_ids: tuple[tuple[int, ...], ...] | list[list[int]] | None
    suppress_tokens: tuple[int, ...] | list[int] | None
    do_sample: bool | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    seed: int | None
    num_return_sequences: int | None


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """Settings of greedy search, beam search or sampling, with the names and meanings of transformers.

    Lengths include the start token and the prompt.
    """

    num_beams: int = 1
    """1 is greedy search."""
    min_length: int = 0
    """The end token is excluded while a text has fewer tokens."""
    max_length: int = 20
    """Greatest number of tokens of a text."""
    max_new_tokens: int | None = None
    """Greatest number of tokens after the prompt. It takes precedence over `max_length`."""
    length_penalty: float = 1.0
    """The score of a hypothesis is its log-probability / generated length ** length_penalty."""
    early_stopping: Literal[False, True, "never"] = False
    """Beam search: True stops at `num_beams` finished hypotheses, False when an improvement is unlikely, "never" when it is impossible."""
    repetition_penalty: float = 1.0
    """Scores of tokens in the text so far, prompt included, are divided by it if positive and else multiplied by it. 1.0 has no effect."""
    no_repeat_ngram_size: int = 0
    """No sequence of this many tokens occurs twice. 0 has no effect."""
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    """Sequences of token ids that must not be generated."""
    suppress_tokens: tuple[int, ...] = ()
    """Token ids that must not be generated."""
    do_sample: bool = False
    """Draw each token at random from its probabilities, without beams."""
    temperature: float = 1.0
    """Sampling: logits are divided by it."""
    top_k: int = 50
    """Sampling: only this many most probable tokens are drawn. 0 has no effect."""
    top_p: float = 1.0
    """Sampling: only the most probable tokens whose probabilities reach this sum are drawn. 1.0 has no effect."""
    seed: int | None = None
    """Sampling: the same seed and image give the same captions, in any batch. None: other captions in each run."""
    num_return_sequences: int = 1
    """Captions per image: the best of a beam search, or samples. The first is the caption, the others are its `alternatives`."""

    def __post_init__(self) -> None:
        """Check the settings; raise ValueError."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type in PLAIN_TYPES and not (value is None and field.type == (int | None)):
                accepted, plain, words = PLAIN_TYPES[field.type]
                if not isinstance(value, accepted) or isinstance(value, bool) != (plain is bool):
                    raise ValueError(f"{field.name} must be {words}, not {value!r}")
                object.__setattr__(self, field.name, plain(value))
        if self.num_beams < 1:
            raise ValueError("num_beams must be at least 1")
        if self.min_length < 0 or self.max_length < 2 or (self.max_new_tokens is None and self.min_length > self.max_length):
            raise ValueError("lengths must satisfy 0 <= min_length <= max_length and max_length >= 2")
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise ValueError("max_new_tokens must be at least 1")
        if not -10 <= self.length_penalty <= 10:  # larger exponents overflow float32
            raise ValueError("length_penalty must be between -10 and 10")
        if not (type(self.early_stopping) is bool or self.early_stopping == "never"):
            raise ValueError("early_stopping must be true, false or 'never'")
        if not SMALLEST <= self.repetition_penalty <= 1 / SMALLEST:  # scores are float32
            raise ValueError(f"repetition_penalty must be between {SMALLEST:g} and {1 / SMALLEST:g}")
        if self.no_repeat_ngram_size < 0:
            raise ValueError("no_repeat_ngram_size must not be negative")
        if self.do_sample and self.num_beams > 1:
            raise ValueError("a beam search that samples is not supported: set do_sample to False (--no-do-sample) or num_beams to 1")
        if self.num_return_sequences < 1 or (not self.do_sample and self.num_return_sequences > self.num_beams):
            raise ValueError("num_return_sequences must be at least 1, and at most num_beams without do_sample")
        if not SMALLEST <= self.temperature <= 1 / SMALLEST or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                f"temperature must be between {SMALLEST:g} and {1 / SMALLEST:g}, top_k at least 0, and top_p above 0 and at most 1"
            )
        if self.seed is not None and self.seed < 0:
            raise ValueError("seed must not be negative")
        lists = (self.suppress_tokens, self.bad_words_ids, *(self.bad_words_ids if isinstance(self.bad_words_ids, Iterable) else ()))
        if not all(isinstance(each, Iterable) for each in lists):
            raise ValueError("suppress_tokens must be a list of token ids, and bad_words_ids a list of such lists")
        object.__setattr__(self, "bad_words_ids", tuple(tuple(map(_token, word)) for word in self.bad_words_ids))
        object.__setattr__(self, "suppress_tokens", tuple(map(_token, self.suppress_tokens)))
        if not all(self.bad_words_ids):
            raise ValueError("bad_words_ids must not contain an empty sequence")

    def max_length_after(self, prompt: int) -> int:
        """Return the greatest length of a text whose prompt, start token included, has this many tokens."""
        return self.max_length if self.max_new_tokens is None else prompt + self.max_new_tokens

    def within(self, positions: int, prompt: int) -> "GenerationConfig":
        """Return these settings with a `max_new_tokens` that ends at the model's positions, behind a prompt of this many tokens."""
        if self.max_new_tokens is None or not prompt < positions < prompt + self.max_new_tokens:
            return self
        return replace(self, max_new_tokens=positions - prompt)

    def deterministic(self) -> "GenerationConfig":
        """Return these settings without sampling and with one caption per image, for comparisons of captions."""
        return replace(self, do_sample=False, num_return_sequences=1, seed=None)

    def for_one_graph(self) -> "GenerationConfig":
        """Return these settings without those that a single graph cannot apply."""
        neutral = GenerationConfig()
        return replace(self, **{name: getattr(neutral, name) for name in ("num_beams", *STEPWISE_SETTINGS)})

    def beyond_greedy(self) -> tuple[str, ...]:
        """Return the names of settings in effect that a session without logits cannot apply: those of `runtimes.decoding.processors`."""
        neutral = GenerationConfig()
        return tuple(name for name in STEPWISE_SETTINGS if getattr(self, name) != getattr(neutral, name))

    def vocabulary_problem(self, vocabulary: int) -> str | None:
        """Return which setting does not fit a vocabulary of that many words, or None."""
        if 2 * self.num_beams >= vocabulary:
            return f"{self.num_beams} beams are too many for a vocabulary of {vocabulary}"
        if self.largest_token >= vocabulary:
            return f"token id {self.largest_token} in bad_words_ids or suppress_tokens is not in the vocabulary of {vocabulary}"
        if len({*self.suppress_tokens, *(word[0] for word in self.bad_words_ids if len(word) == 1)}) >= vocabulary:
            return f"bad_words_ids and suppress_tokens exclude all of the {vocabulary} tokens"
        return None

    @property
    def largest_token(self) -> int:
        """The largest token id in `bad_words_ids` and `suppress_tokens`; -1 without any."""
        return max((*self.suppress_tokens, *(token for word in self.bad_words_ids for token in word)), default=-1)


def _token(value: object) -> int:
    """Return a token id; raise ValueError for anything else."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 0:
        raise ValueError(f"bad_words_ids and suppress_tokens must contain token ids, not {value!r}")
    return int(value)
