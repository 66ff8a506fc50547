"""The settings of a request, checked against the model and the abilities of the session."""

from dataclasses import replace
from typing import Any

from runtimes.artifact.generation import GenerationConfig, GenerationOptions
from runtimes.artifact.manifest import Manifest
from runtimes.decoding.session import LoopSession, Session, require
from runtimes.errors import RequestError


def checked_config(
    manifest: Manifest, session: Session | LoopSession, prompt: int, base: GenerationConfig, options: GenerationOptions
) -> GenerationConfig:
    """Return the settings of a request.

    Args:
        manifest: The artifact's.
        session: The session that runs the request.
        prompt: Number of tokens of the prompt, start token included.
        base: Settings for options of None.
        options: Settings by name. A `max_length` without `max_new_tokens` replaces that setting of `base`.

    Raises:
        RequestError: The settings are invalid, exceed a limit of the model, or need a capability that the session lacks.
    """
    requested: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if "max_length" in requested:
        requested.setdefault("max_new_tokens", None)
    try:
        config = replace(base, **requested)
    except ValueError as error:
        raise RequestError(str(error)) from error
    limit, vocabulary = manifest.model.max_positions, manifest.model.vocabulary
    if (max_length := config.max_length_after(prompt)) > limit:
        name = "max_length" if config.max_new_tokens is None else f"a prompt of {prompt} tokens and max_new_tokens {config.max_new_tokens}:"
        raise RequestError(f"{name} {max_length} is more than the {limit} positions of this model")
    if prompt >= max_length:
        raise RequestError(f"the prompt takes {prompt} tokens, so max_length must be more than that; it is {max_length}")
    if config.min_length > max_length:
        raise RequestError(f"min_length {config.min_length} is more than the greatest length, {max_length}")
    if 2 * config.num_beams >= vocabulary:
        raise RequestError(f"{config.num_beams} beams are too many for a vocabulary of {vocabulary}")
    if config.largest_token >= vocabulary:
        raise RequestError(f"token id {config.largest_token} in bad_words_ids or suppress_tokens is not in the vocabulary of {vocabulary}")
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
