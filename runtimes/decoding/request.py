"""The prompts and the settings of a request, checked against the images, the model and the abilities of the session."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, TypeAlias

from runtimes.artifact.generation import GenerationConfig, GenerationOptions
from runtimes.artifact.manifest import Manifest
from runtimes.decoding.session import LoopSession, Session, require
from runtimes.decoding.tokenizer import CaptionTokenizer
from runtimes.errors import RequestError

Prompt: TypeAlias = str | Sequence[str | None] | None
"""Text that each caption starts with, or one text or None for each image."""


def prompt_ids_of(prompt: Prompt, count: int | None, tokenizer: CaptionTokenizer) -> list[list[int]]:
    """Return the ids of the prompt of each image, or of the prompt of all images.

    Args:
        prompt: Text or texts.
        count: Number of images; None if it is unknown.
        tokenizer: The artifact's.

    Raises:
        RequestError: `prompt` is not text, None or a list of these, or its length is not the known number of images.
    """
    texts: list[Any] = list(prompt) if isinstance(prompt, (list, tuple)) else [prompt]
    if wrong := [text for text in texts if not (text is None or isinstance(text, str))]:
        raise RequestError(f"prompt must be text, None, or a list of these with one for each image; it is or contains {wrong[0]!r}")
    if isinstance(prompt, (list, tuple)) and count is not None and count != len(texts):
        raise RequestError(f"prompt is a list of {len(texts)}, and there are {count} images; give one prompt for each image")
    return [tokenizer.prompt_ids(text) for text in texts]


def checked_config(
    manifest: Manifest, session: Session | LoopSession, prompt: int, base: GenerationConfig, options: GenerationOptions
) -> GenerationConfig:
    """Return the settings of a request. A `max_new_tokens` of the defaults may exceed the positions; see `GenerationConfig.within`.

    Args:
        manifest: The artifact's.
        session: The session that runs the request.
        prompt: Number of tokens of the prompt, start token included.
        base: Settings for options of None.
        options: Settings by name. A `max_length` without `max_new_tokens` replaces that setting of `base`.

    Raises:
        RequestError: The settings are invalid, exceed a limit of the model, or need a capability that the session lacks.
    """
    if not isinstance(base, GenerationConfig):
        kind = f"{type(base).__module__}.{type(base).__qualname__}"
        raise RequestError(f"generation_config must be a GenerationConfig of runtimes.artifact.generation, not {kind}")
    known = {field.name for field in fields(base)}
    if unknown := [name for name in options if name not in known]:
        raise RequestError(f"unknown setting {unknown[0]!r}; the settings are {', '.join(sorted(known))}")
    requested: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if "max_length" in requested:
        requested.setdefault("max_new_tokens", None)
    try:
        config = replace(base, **requested)
    except ValueError as error:
        raise RequestError(str(error)) from error
    limit, vocabulary = manifest.model.max_positions, manifest.model.vocabulary
    is_default = base is manifest.defaults and not {"max_length", "max_new_tokens"} & requested.keys()
    if (max_length := (config.within(limit, prompt) if is_default else config).max_length_after(prompt)) > limit:
        name = "max_length" if config.max_new_tokens is None else f"a prompt of {prompt} tokens and max_new_tokens {config.max_new_tokens}:"
        raise RequestError(f"{name} {max_length} is more than the {limit} positions of this model")
    if prompt >= max_length:
        raise RequestError(f"the prompt takes {prompt} tokens, so max_length must be more than that; it is {max_length}")
    if config.min_length > max_length:
        raise RequestError(f"min_length {config.min_length} is more than the greatest length, {max_length}")
    if problem := config.vocabulary_problem(vocabulary):
        raise RequestError(problem)
    require(session, *(("beams",) if config.num_beams > 1 else ()))
    require_steps(manifest, session, config.beyond_greedy())
    return config


def require_steps(manifest: Manifest, session: Session | LoopSession, features: tuple[str, ...]) -> None:
    """Check that the session returns the logits of each step, if there are features that need them.

    Raises:
        RequestError: The artifact has its whole loop in one graph.
    """
    if features and "loop" in session.capabilities:
        raise RequestError(
            f"{manifest.name} has its whole loop in one graph and cannot apply {', '.join(features)}; use a split recipe for them"
        )
