"""Text ↔ token ids with the `tokenizers` library alone, by the rules of a manifest's `tokenizer` section."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer

from runtimes.artifact.manifest import TEXT, TokenizerSpec
from runtimes.errors import ArtifactCorruptError, ToolkitError, translate_errors


class CaptionTokenizer:
    """A checkpoint's tokenizer with its family's rules for prompts and captions."""

    def __init__(self, tokenizer_json: bytes, spec: TokenizerSpec) -> None:
        self._tokenizer: Tokenizer = Tokenizer.from_buffer(tokenizer_json)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._spec = spec

    def prompt_ids(self, prompt: str | None) -> list[int]:
        """Return the ids that a text starts with: the template, filled with the prompt's own ids.

        BLIP: [DEC], then the prompt's words. The tokenizer gives `[CLS] words [SEP]`, of which both ends are dropped, as in transformers.
        """
        ids: list[int] = []
        for part in self._spec.template.split():
            ids += self._own_ids(prompt) if part == TEXT else [self._spec.special_ids[part]]
        return ids

    def caption_ids(self, caption: str) -> list[int]:
        """Return the ids of a complete caption: those of a prompt, then the end token."""
        return [*self.prompt_ids(caption), self._spec.eos_id]

    def _own_ids(self, text: str | None) -> list[int]:
        """Return the ids of a text without those that the tokenizer puts around it."""
        if text is None:
            return []
        with translate_errors(_failed):
            ids = list(self._tokenizer.encode(text).ids)
        return ids[self._spec.drop_left : max(0, len(ids) - self._spec.drop_right)]

    def text(self, token_ids: Iterable[int]) -> str:
        """Return the words of ids; special tokens are left out."""
        with translate_errors(_failed):
            return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True)).strip()


def _failed(problem: str) -> ToolkitError:
    """What a tokenizer that loaded may still be unable to do."""
    return ArtifactCorruptError(Path("tokenizer.json"), f"cannot turn words into ids and back: {problem}")
