"""What is said of an image, as a row: a Caption goes in; JSON values, a line of JSON or a line of text come out."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtimes.caption import Caption
    from runtimes.captioner import Captioner

Row = Mapping[str, Any]


def row_of(image: str, caption: "Caption", captioner: "Captioner", prompt: str | None) -> Row:
    """Return an image's row; a prompt is left out of its text."""
    if caption.error is not None:
        return {"image": image, "error": caption.error, "code": caption.code}
    text = captioner.strip_prompt(caption, prompt) if prompt else caption.text
    return {"image": image, "caption": text, "token_ids": caption.token_ids, "score": caption.score}


def json_line(row: Row) -> str:
    """Return a row as JSON; only a name that no terminal takes as it is becomes ASCII."""
    return json.dumps(row, ensure_ascii=not row["image"].isprintable())


def text_line(row: Row) -> str:
    """Return a row as name, tab, text; a name that holds line breaks, tabs or bytes that are no text is escaped."""
    image = row["image"]
    return f"{image if image.isprintable() else ascii(image)}\t{row['caption']}"
