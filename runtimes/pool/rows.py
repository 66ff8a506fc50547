"""Convert a `Caption` to a row of JSON values, and a row to a line of JSON or text."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtimes.tasks.captioner import Captioner
    from runtimes.tasks.results import Caption

Row = Mapping[str, Any]


def row_of(image: str, caption: "Caption", captioner: "Captioner", prompt: str | None) -> Row:
    """Return the row of an image. If `prompt` is given, it is removed from the text."""
    if caption.error is not None:
        return {"image": image, "error": caption.error, "code": caption.code}
    fields = _caption_fields(caption, captioner, prompt)
    others = [_caption_fields(alternative, captioner, prompt) for alternative in caption.alternatives]
    return {"image": image, **fields, **({"alternatives": others} if others else {})}


def _caption_fields(caption: "Caption", captioner: "Captioner", prompt: str | None) -> Row:
    text = captioner.strip_prompt(caption, prompt) if prompt else caption.text
    row = {"caption": text, "token_ids": caption.token_ids, "score": caption.score, "finish_reason": caption.finish_reason}
    return row if caption.log_probabilities is None else {**row, "log_probabilities": caption.log_probabilities}


def json_line(row: Row) -> str:
    """Return a row as JSON. If the image's name is not printable, the line is escaped to ASCII."""
    return json.dumps(row, ensure_ascii=not row["image"].isprintable())


def text_line(row: Row) -> str:
    """Return a row as name, tab, text. A name with line breaks, tabs or undecodable bytes is escaped."""
    image = row["image"]
    return f"{image if image.isprintable() else ascii(image)}\t{row['caption']}"
