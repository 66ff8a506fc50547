"""Record which bytes the libraries parse: no byte of a damaged file may reach them."""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnxruntime

from runtimes.decoding import tokenizer as tokenizer_module


@contextlib.contextmanager
def watched() -> Iterator[set[str]]:
    """Yield the sha256 of every file or buffer that onnxruntime or tokenizers is asked to parse while the body runs."""
    seen: set[str] = set()
    session, tokenizer = onnxruntime.InferenceSession, tokenizer_module.Tokenizer

    class Session(session):  # type: ignore[misc, valid-type]
        def __init__(self, source: Any, *args: Any, **options: Any) -> None:
            seen.add(sha256(source if isinstance(source, bytes) else Path(source).read_bytes()))
            super().__init__(source, *args, **options)

    class Tokenizer:
        @staticmethod
        def from_buffer(content: bytes) -> Any:
            seen.add(sha256(content))
            return tokenizer.from_buffer(content)

    onnxruntime.InferenceSession, tokenizer_module.Tokenizer = Session, Tokenizer
    try:
        yield seen
    finally:
        onnxruntime.InferenceSession, tokenizer_module.Tokenizer = session, tokenizer


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
