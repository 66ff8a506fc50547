"""The images and options of a request: raw bytes of one image, multipart/form-data, or base64 in JSON. Options may also be in the query."""

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from typing import Any
from urllib.parse import parse_qsl

import python_multipart
from python_multipart.exceptions import FormParserError

from runtimes.artifact import json_dataclass
from runtimes.errors import RequestError
from toolkit.serve.settings import Limits

MAX_PARTS = 64
"""Parts of a multipart body besides images."""
MAX_NAME = 255
"""Characters of an image's name; longer ones are cut."""


@dataclass(kw_only=True)
class RequestBody:
    """What a client sent."""

    images: list[tuple[str, bytes]] = field(default_factory=list)
    """Name and file of each image."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options by name, not checked yet."""

    def add_option(self, name: str, value: object) -> None:
        """Add an option.

        Raises:
            RequestError: It was given before.
        """
        if name in self.options:
            raise RequestError(f"the option {name} is given twice")
        self.options[name] = value


@dataclass(frozen=True, kw_only=True)
class OptionForms:
    """How values of options are written in a query or a form."""

    texts: frozenset[str]
    """Options whose value is text. Other values are JSON; what is no JSON is text."""
    lists: frozenset[str]
    """Options whose value is a list of texts; what is no JSON list is one text."""

    def value(self, name: str, text: str) -> Any:  # noqa: ANN401 - a JSON value
        """Return an option as a JSON value."""
        if name in self.texts:
            return text
        try:
            value = json_dataclass.parse(text.encode())
        except ValueError:
            value = text
        return [text] if name in self.lists and value is not None and not isinstance(value, list) else value


def parse_request(content_type: str, query: bytes, body: bytes, forms: OptionForms, limits: Limits) -> RequestBody:
    """Return the images and options of a request.

    Args:
        content_type: Header of the request. Other types than JSON and multipart/form-data are raw bytes of an image.
        query: Query of the URL.
        body: The whole body.
        forms: How values of options are written.
        limits: Numbers of images and characters.

    Raises:
        RequestError: The body is malformed, has no image or too many, or its options are too long.
    """
    parsed = RequestBody()
    header = Message()
    header["content-type"] = content_type
    for name, value in _query(query):
        parsed.add_option(name, forms.value(name, value))
    parser: Callable[[Message, bytes, OptionForms, RequestBody, Limits], None]
    parser = PARSERS.get(header.get_content_type() if content_type else "", _raw)
    parser(header, body, forms, parsed, limits)
    if not parsed.images:
        raise RequestError("the request has no image; send its bytes as the body, as a file of a form, or as base64 in JSON")
    if len(parsed.images) > limits.max_images:
        raise RequestError(f"the request has {len(parsed.images)} images; this server accepts at most {limits.max_images}")
    if len(json.dumps(parsed.options)) > limits.text_chars:
        raise RequestError(f"the options have more than {limits.text_chars:,} characters")
    return parsed


def _query(query: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            query.decode("ascii"), keep_blank_values=True, strict_parsing=bool(query), errors="strict", max_num_fields=MAX_PARTS
        )
    except ValueError as error:
        raise RequestError(f"the query of the URL is malformed: {error}") from error


def _raw(header: Message, body: bytes, forms: OptionForms, parsed: RequestBody, limits: Limits) -> None:
    if body:
        parsed.images.append(("image", body))


def _json(header: Message, body: bytes, forms: OptionForms, parsed: RequestBody, limits: Limits) -> None:
    try:
        document = json_dataclass.parse(body)
    except ValueError as error:
        raise RequestError(f"the body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise RequestError("the body must be a JSON object with the key images")
    images = document.pop("images", None)
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise RequestError("images must be a list of texts, each the base64 of an image")
    if len(images) <= limits.max_images:
        parsed.images += [(f"images[{i}]", _base64(image, i)) for i, image in enumerate(images)]
    else:
        parsed.images += [(f"images[{i}]", b"") for i in range(len(images))]
    for name, value in document.items():
        parsed.add_option(name, value)


def _base64(text: str, index: int) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(f"images[{index}] is not base64: {error}") from error


def _multipart(header: Message, body: bytes, forms: OptionForms, parsed: RequestBody, limits: Limits) -> None:
    boundary = header.get_param("boundary")
    if not isinstance(boundary, str) or not boundary.isascii():
        raise RequestError("multipart/form-data needs a boundary")
    parts = _Parts()
    try:
        parser = python_multipart.MultipartParser(boundary.encode(), parts.callbacks())  # type: ignore[arg-type]
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise RequestError(f"the body is not multipart/form-data: {error}") from error
    if not parts.complete:
        raise RequestError("the body of multipart/form-data is not complete")
    for disposition, content in parts.parts:
        name, file = disposition.get_param("name", header="content-disposition"), disposition.get_filename()
        if file is not None:
            parsed.images.append((_printable(file) or f"images[{len(parsed.images)}]", content))
        elif not isinstance(name, str):
            raise RequestError("a part of multipart/form-data has no name")
        else:
            parsed.add_option(name, forms.value(name, _text(name, content)))


def _printable(name: str) -> str:
    """Return a file name without folders, as a name in a row."""
    base = name.replace("\\", "/").rpartition("/")[2][:MAX_NAME]
    return base if base.isprintable() else ascii(base)[1:-1]


def _text(name: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise RequestError(f"the option {_printable(name)} is not UTF-8") from error


PARSERS = {"application/json": _json, "multipart/form-data": _multipart}
"""Content type → function that adds to a `RequestBody`."""


class _Parts:
    """Collects the parts of a multipart body."""

    def __init__(self) -> None:
        self.parts: list[tuple[Message, bytes]] = []
        self.complete = False
        self._headers, self._name, self._text = Message(), b"", b""
        self._content: list[bytes] = []

    def callbacks(self) -> Mapping[str, Callable[..., None]]:
        """Return the callbacks of `python_multipart.MultipartParser`."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: setattr(self, "_name", self._name + data[start:end]),
            "on_header_value": lambda data, start, end: setattr(self, "_text", self._text + data[start:end]),
            "on_header_end": self._header,
            "on_part_data": lambda data, start, end: self._content.append(data[start:end]),
            "on_part_end": lambda: self.parts.append((self._headers, b"".join(self._content))),
            "on_end": lambda: setattr(self, "complete", True),
        }

    def _begin(self) -> None:
        if len(self.parts) > MAX_PARTS:
            raise RequestError(f"multipart/form-data has more than {MAX_PARTS} parts")
        self._headers, self._content = Message(), []

    def _header(self) -> None:
        self._headers[self._name.decode("ascii", "replace")] = self._text.decode("utf-8", "replace")
        self._name = self._text = b""
