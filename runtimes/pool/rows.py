"""Convert the texts of an image to a row of JSON values, and a row to lines of JSON or text.

The row of an image with questions has their answers in a list. Its lines are one for each question.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from runtimes.tasks.registry import TASKS

if TYPE_CHECKING:
    from runtimes.tasks.results import Caption, GeneratedText, Match
    from runtimes.tasks.text_generator import TextGenerator

Row = Mapping[str, Any]


def row_of(image: str, texts: "Sequence[GeneratedText]", model: "TextGenerator[Any, Any]", prompt: str | None) -> Row:
    """Return the row of an image: its caption, or the answers to its questions. If `prompt` is given, it is removed from the text.

    Args:
        image: Name of the image.
        texts: The caption, or one answer per question.
        model: The model that generated the texts.
        prompt: Prompt to remove; None keeps it.
    """
    if (first := texts[0]).error is not None:
        return {"image": image, "error": first.error, "code": first.code}
    rows = [_fields(text, model, prompt) for text in texts]
    return {"image": image, "answers": rows} if hasattr(first, "question") else {"image": image, **rows[0]}


def _fields(text: "GeneratedText", model: "TextGenerator[Any, Any]", prompt: str | None) -> Row:
    question = {"question": text.question} if hasattr(text, "question") else {}
    fields = {**question, **_text_fields(text, model, prompt)}
    others = [_text_fields(alternative, model, prompt) for alternative in text.alternatives]
    return {**fields, **({"alternatives": others} if others else {})}


def _text_fields(text: "GeneratedText", model: "TextGenerator[Any, Any]", prompt: str | None) -> Row:
    value = model.strip_prompt(text, prompt) if prompt else text.text
    word = TASKS[model.manifest.task].text
    row = {word: value, "token_ids": text.token_ids, "score": text.score, "finish_reason": text.finish_reason}
    return row if text.log_probabilities is None else {**row, "log_probabilities": text.log_probabilities}


def match_row(image: str, texts: Sequence[str], match: "Match") -> Row:
    """Return the row of an image that was compared with texts."""
    if match.error is not None:
        return {"image": image, "error": match.error, "code": match.code}
    scores = zip(texts, match.probabilities, match.similarities, strict=True)
    return {
        "image": image,
        "matches": [{"text": text, "probability": probability, "similarity": cosine} for text, probability, cosine in scores],
    }


def caption_of(row: Row) -> "Caption":
    """Return the caption of a row."""
    from runtimes.tasks.results import Caption

    if "error" in row:
        return Caption(text="", token_ids=(), score=None, error=row["error"], code=row["code"])
    values = row.get("log_probabilities")
    return Caption(
        text=row["caption"],
        token_ids=tuple(row["token_ids"]),
        score=row["score"],
        log_probabilities=None if values is None else tuple(values),
        finish_reason=row["finish_reason"],
        alternatives=tuple(map(caption_of, row.get("alternatives", ()))),
    )


def json_lines(row: Row) -> str:
    """Return a row as lines of JSON, without the last line break. If the image's name is not printable, they are escaped to ASCII."""
    return "\n".join(json.dumps(each, ensure_ascii=not row["image"].isprintable()) for each in _each(row))


def text_lines(row: Row) -> str:
    """Return a row as name, tab, text, or as a line with name, question and answer for each question.

    A name or question with line breaks, tabs or undecodable bytes is escaped.
    """
    columns = ("image", "question", "answer") if "answers" in row else ("image", "caption")
    return "\n".join("\t".join([*(_printable(each[name]) for name in columns[:-1]), each[columns[-1]]]) for each in _each(row))


def row_from_lines(image: str, lines: Sequence[str], *, as_json: bool, asked: bool) -> Row:
    """Return the row of an image from its lines, as `json_lines` or `text_lines` writes them; of text, only what a later run needs.

    Args:
        image: Name of the image.
        lines: Its lines.
        as_json: Whether they are JSON.
        asked: Whether they are answers to questions.
    """
    if as_json:
        rows = [json.loads(line) for line in lines]
        if not asked or "error" in rows[0]:
            return rows[0]  # type: ignore[no-any-return]
        return {"image": image, "answers": [{name: value for name, value in row.items() if name != "image"} for row in rows]}
    parts = [line.rstrip("\n").split("\t", 2 if asked else 1) for line in lines]
    if asked:
        return {"image": image, "answers": [{"question": question, "answer": answer} for _, question, answer in parts]}
    return {"image": image, "caption": parts[0][1]}


def _each(row: Row) -> Sequence[Row]:
    return [{"image": row["image"], **answer} for answer in row["answers"]] if "answers" in row else [row]


def _printable(name: str) -> str:
    return name if name.isprintable() else ascii(name)
