"""Convert text to token ids and back with the `tokenizers` library, by the rules of a manifest's `tokenizer` section."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer

from runtimes.artifact.manifest import TEXT, TokenizerSpec
from runtimes.errors import ArtifactCorruptError, RequestError, ToolkitError, translate_errors

CLEAN_UP = (
    *((f" {mark}", mark) for mark in ".?!,"),
    (" ' ", "'"),
    *((f" {end}", end) for end in ("n't", "'m", "'s", "'ve", "'re")),
)
"""Replacements of transformers' `clean_up_tokenization`, in order."""


class CaptionTokenizer:
    """The tokenizer of a checkpoint with the rules of its model family for prompts and captions.

    Args:
        tokenizer_json: Content of tokenizer.json.
        spec: The `tokenizer` section of the manifest.
    """

    def __init__(self, tokenizer_json: bytes, spec: TokenizerSpec) -> None:
        self._tokenizer: Tokenizer = Tokenizer.from_buffer(tokenizer_json)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._spec = spec

    def prompt_ids(self, prompt: str | None) -> list[int]:
        """Return the ids that every caption starts with: the template, with the prompt's ids in place of `{text}`.

        For BLIP, these are [DEC] and the ids of the prompt. The tokenizer returns `[CLS] prompt [SEP]`; both ends are dropped, as in
        transformers. None is an empty prompt.

        Raises:
            RequestError: The prompt is not a str.
            ArtifactCorruptError: The tokenizer fails.
        """
        ids: list[int] = []
        for part in self._spec.template.split():
            ids += self._own_ids(prompt) if part == TEXT else [self._spec.special_ids[part]]
        return ids

    def text_ids(self, caption: str) -> list[int]:
        """Return the ids of a complete caption: the ids of the same text as a prompt, and the end token."""
        return [*self.prompt_ids(caption), self._spec.eos_id]

    def encoder_ids(self, text: str) -> list[int]:
        """Return the ids of a text for an encoder: with the special tokens that the tokenizer adds at its ends.

        Raises:
            RequestError: The text is not a str.
            ArtifactCorruptError: The tokenizer fails.
        """
        if not isinstance(text, str):
            raise RequestError(f"a text must be a str, not {type(text).__name__}")
        with translate_errors(_failed):
            return list(self._tokenizer.encode(text).ids)

    def words_ids(self, words: Iterable[str]) -> tuple[tuple[int, ...], ...]:
        """Return the ids of words as `bad_words_ids`.

        Raises:
            RequestError: A word has no token.
            ArtifactCorruptError: The tokenizer fails.
        """
        ids = {word: tuple(self._own_ids(word)) for word in words}
        if empty := [word for word, tokens in ids.items() if not tokens]:
            raise RequestError(f"the bad word {empty[0]!r} has no token")
        return tuple(ids.values())

    def _own_ids(self, text: str | None) -> list[int]:
        """Return the ids of a text without the special tokens that the tokenizer adds at its ends."""
        if text is None:
            return []
        ids = self.encoder_ids(text)
        return ids[self._spec.drop_left : max(0, len(ids) - self._spec.drop_right)]

    def text(self, token_ids: Iterable[int]) -> str:
        """Return the text of token ids, without special tokens: that of `decode(token_ids, skip_special_tokens=True)` of the checkpoint.

        Raises:
            ArtifactCorruptError: The tokenizer fails.
        """
        with translate_errors(_failed):
            text = str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))
        if self._spec.clean_up_tokenization_spaces:
            for spaced, clean in CLEAN_UP:
                text = text.replace(spaced, clean)
        return text


def _failed(problem: str) -> ToolkitError:
    """Return the error of a tokenizer that was loaded and fails on a text."""
    return ArtifactCorruptError(Path("tokenizer.json"), f"cannot convert between text and token ids: {problem}")
