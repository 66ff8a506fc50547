"""The OpenAPI document, derived from the tasks, the options' types and the table of HTTP status."""

import types
import typing
from collections import defaultdict
from importlib.metadata import version
from typing import Any

from toolkit.serve.errors import STATUS
from toolkit.serve.http.access import PROBES
from toolkit.serve.settings import Settings
from toolkit.serve.tasks import TASKS, ServedTask

Schema = dict[str, Any]

SCALARS: dict[type, Schema] = {
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    bool: {"type": "boolean"},
}
TASK_ERRORS = frozenset(STATUS) - {"METHOD_NOT_ALLOWED"}
"""Codes of the routes of tasks."""
ROW: Schema = {
    "type": "object",
    "required": ["image"],
    "properties": {
        "image": {"type": "string", "description": "Name of the image in the request."},
        "caption": {"type": "string"},
        "answers": {"type": "array", "items": {"type": "object"}, "description": "Of /v1/ask: question and the fields of a caption."},
        "matches": {"type": "array", "items": {"type": "object"}, "description": "Of /v1/match: text, probability and similarity."},
        "token_ids": {"type": "array", "items": {"type": "integer"}},
        "score": {"type": ["number", "null"], "description": "Natural-log probability / generated length ** length_penalty."},
        "finish_reason": {"enum": ["stop", "length"]},
        "log_probabilities": {"type": "array", "items": {"type": "number"}},
        "alternatives": {"type": "array", "items": {"type": "object"}},
        "error": {"type": "string"},
        "code": {"type": "string"},
    },
}
ERROR: Schema = {
    "type": "object",
    "required": ["error", "code"],
    "properties": {"error": {"type": "string"}, "code": {"type": "string"}, "rows": {"type": "array", "items": ROW}},
}
ANSWER: Schema = {
    "type": "object",
    "required": ["rows", "timings"],
    "properties": {
        "rows": {"type": "array", "items": ROW},
        "timings": {"type": "object", "additionalProperties": {"type": "number"}, "description": "Seconds."},
    },
}
GETS = {
    "/healthz": ("Whether the server is alive. It fails if a run of the model takes ten times its usual time.", "application/json"),
    "/readyz": ("Whether the model is loaded, has passed its check, and the server is not shutting down.", "application/json"),
    "/metrics": ("Metrics in Prometheus' text format.", "text/plain"),
    "/v1/info": ("Artifact, engine, limits, check and start times.", "application/json"),
    "/openapi.json": ("This document.", "application/json"),
    "/": ("A page to try the model.", "text/html"),
}


def openapi_document(settings: Settings) -> Schema:
    """Return the document, OpenAPI 3.1."""
    secured = bool(settings.access.tokens)
    document: Schema = {
        "openapi": "3.1.0",
        "info": {"title": "blip-toolkit", "version": version("blip-toolkit")},
        "paths": {
            **{path: {"get": _get(path, summary, kind, secured=secured)} for path, (summary, kind) in GETS.items()},
            **{task.path: {"post": _post(task, settings, secured=secured)} for task in TASKS.values()},
        },
        "components": {"schemas": {"Row": ROW, "Error": ERROR, "Answer": ANSWER}},
    }
    if secured:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return document


def _get(path: str, summary: str, kind: str, *, secured: bool) -> Schema:
    responses: Schema = {"200": {"description": "OK", "content": {kind: {}}}}
    if path in PROBES:
        responses["503"] = _error("NOT_READY" if path == "/readyz" else "not alive")
    return {"summary": summary, "responses": responses, **_security(secured=secured and path not in {*PROBES, "/"})}


def _post(task: ServedTask, settings: Settings, *, secured: bool) -> Schema:
    options = {name: schema_of(kind) for name, kind in typing.get_type_hints(type(task.sample)).items() if name in task.options}
    images = {"type": "array", "minItems": 1, "maxItems": settings.limits.max_images}
    form = {name: schema if name in task.texts else {} for name, schema in options.items()}
    content: Schema = {
        "image/*": {"schema": {"type": "string", "format": "binary"}},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"images": {**images, "items": {"type": "string", "format": "binary"}}, **form},
                "required": ["images", *([task.needed] if task.needed else [])],
            }
        },
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {"images": {**images, "items": {"type": "string", "contentEncoding": "base64"}}, **options},
                "required": ["images", *([task.needed] if task.needed else [])],
                "additionalProperties": False,
            }
        },
    }
    by_status: dict[int, list[str]] = defaultdict(list)
    for code in sorted(TASK_ERRORS):
        by_status[STATUS[code]].append(code)
    by_status[500].append("other codes")
    parameters = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in options]
    ok = {"description": "A row for each image", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Answer"}}}}
    return {
        "summary": task.summary,
        "parameters": parameters,
        "requestBody": {"required": True, "content": content},
        "responses": {"200": ok, **{str(status): _error(", ".join(codes)) for status, codes in sorted(by_status.items())}},
        **_security(secured=secured),
    }


def _error(description: str) -> Schema:
    return {"description": description, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}


def _security(*, secured: bool) -> Schema:
    return {"security": [{"token": []}]} if secured else {}


def schema_of(kind: Any) -> Schema:  # noqa: ANN401 - a type
    """Return the JSON schema of a field's type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind in SCALARS:
        return SCALARS[kind]
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [{"type": "null"} if each is types.NoneType else schema_of(each) for each in arguments]}
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin is tuple:
        return {"type": "array", "items": schema_of(arguments[0])}
    return {}
