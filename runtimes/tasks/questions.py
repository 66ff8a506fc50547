"""The questions of a request, checked against the images and the model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, TypeAlias

from runtimes.decoding.tokenizer import CaptionTokenizer
from runtimes.errors import RequestError

Questions: TypeAlias = "str | Sequence[str | Sequence[str]] | repeat[list[str]]"
"""A question that is asked of every image; or for each image, a question or several. For a single image, its question or questions.
`itertools.repeat([...])` asks the same questions of every image."""


@dataclass(frozen=True)
class Question:
    """A question and its token ids."""

    text: str
    ids: tuple[int, ...]
    """With the special tokens of the question encoder: [CLS], the text, [SEP]."""


def questions_of(
    questions: Questions, images: int | None, *, single: bool, tokenizer: CaptionTokenizer, limit: int
) -> Iterator[list[Question]]:
    """Return the questions of each image; a `repeat` if all images have the same one.

    Args:
        questions: See `Questions`.
        images: Number of images; None if it is unknown.
        single: Whether the caller passed a single image, not a list.
        tokenizer: The artifact's.
        limit: Largest number of tokens of a question.

    Raises:
        RequestError: A question is not text, is empty or too long, an image has none, or there are not as many as images.
    """
    if isinstance(questions, (str, repeat)):
        texts = [questions] if isinstance(questions, str) else next(questions)
        return repeat([_question(text, tokenizer, limit) for text in texts])
    if not isinstance(questions, (list, tuple)):
        raise RequestError(
            f"questions must be text, or a list with the question or questions of each image, not {type(questions).__name__}"
        )
    groups: list[Any] = [questions] if single else list(questions)
    if images is not None and images != len(groups):
        raise RequestError(
            f"questions is a list of {len(groups)}, and there are {images} images; give the question or questions of each image"
        )
    checked = [[_question(each, tokenizer, limit) for each in (group if isinstance(group, (list, tuple)) else [group])] for group in groups]
    if not all(checked):
        raise RequestError("each image needs at least one question")
    return iter(checked)


def _question(text: object, tokenizer: CaptionTokenizer, limit: int) -> Question:
    if not isinstance(text, str):
        raise RequestError(f"a question must be a str, not {type(text).__name__}")
    if not text.strip():
        raise RequestError("a question is empty; write one")
    ids = tokenizer.encoder_ids(text)
    if len(ids) > limit:
        raise RequestError(f"a question has {len(ids)} tokens, and this model reads at most {limit}; shorten it: {text[:40]!r}...")
    return Question(text, tuple(ids))
