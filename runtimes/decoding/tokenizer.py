"""Words ↔ token ids with the `tokenizers` library alone: a prompt or caption goes in, ids come out; and back."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer

from runtimes.artifact.manifest import GenerationSpec
from runtimes.errors import ArtifactCorruptError, ToolkitError, translate_errors


class Tokens:
    """A checkpoint's tokenizer with BLIP's rules for prompts and captions."""

    def __init__(self, tokenizer_json: bytes, spec: GenerationSpec) -> None:
        self._tokenizer: Tokenizer = Tokenizer.from_buffer(tokenizer_json)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._spec = spec

    def _ids(self, text: str) -> list[int]:
        """Return `[CLS] words [SEP]`."""
        with translate_errors(_failed):
            return list(self._tokenizer.encode(text).ids)

    def prompt_ids(self, prompt: str | None) -> list[int]:
        """Return what a caption starts with: [DEC], then the prompt's words.

        The prompt is tokenized as `[CLS] words [SEP]`; its first id becomes [DEC] and its last is dropped, as in transformers.
        """
        if prompt is None:
            return [self._spec.bos_id]
        return [self._spec.bos_id, *self._ids(prompt)[1:-1]]

    def caption_ids(self, caption: str) -> list[int]:
        """Return a complete caption as the decoder should have said it: [DEC] words [SEP]."""
        return [self._spec.bos_id, *self._ids(caption)[1:-1], self._spec.eos_id]

    def text(self, token_ids: Iterable[int]) -> str:
        """Return the words of ids; special tokens are left out."""
        with translate_errors(_failed):
            return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True)).strip()


def _failed(problem: str) -> ToolkitError:
    """What a tokenizer that loaded may still be unable to do."""
    return ArtifactCorruptError(Path("tokenizer.json"), f"cannot turn words into ids and back: {problem}")
