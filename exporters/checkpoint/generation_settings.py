"""Read the decoding settings of a checkpoint: generation_config.json, and the older places in config.json."""

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from exporters.checkpoint.weight_files import read_object
from runtimes.artifact import json_dataclass
from runtimes.artifact.generation import GenerationConfig
from runtimes.errors import CheckpointError

SUPPORTED = tuple(field.name for field in fields(GenerationConfig) if field.name != "seed")

UNSUPPORTED: Mapping[str, Any] = {
    "begin_suppress_tokens": None,
    "constraints": None,
    "diversity_penalty": 0.0,
    "dola_layers": None,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "exponential_decay_length_penalty": None,
    "force_words_ids": None,
    "forced_bos_token_id": None,
    "forced_decoder_ids": None,
    "forced_eos_token_id": None,
    "guidance_scale": None,
    "max_time": None,
    "min_new_tokens": None,
    "min_p": None,
    "num_beam_groups": 1,
    "penalty_alpha": None,
    "prompt_lookup_num_tokens": None,
    "remove_invalid_values": False,
    "renormalize_logits": False,
    "sequence_bias": None,
    "stop_strings": None,
    "token_healing": False,
    "top_h": None,
    "typical_p": 1.0,
    "watermarking_config": None,
}
"""Settings of transformers that `GenerationConfig` lacks → value without effect."""

DEFAULT_NEW_TOKENS = 20
"""Tokens after the prompt where a checkpoint sets no length."""

WITHOUT_EFFECT = re.compile(
    r"_from_model_config|transformers_version|seed|low_memory|is_assistant|generation_kwargs|compile_config|disable_compile|"
    r".*_token_id|output_.*|return_.*|.*cache.*|assistant_.*|num_assistant_tokens.*|.*lookup.*|target_lookbehind|max_matching_ngram_size|prefill_chunk_size"
)
"""Names in generation_config.json that are no settings of captions: bookkeeping, ids of BLIP's text model, outputs, memory and speed."""


def read_defaults(
    directory: Path, config: Mapping[str, Any], max_positions: int, vocabulary: int, source: str
) -> tuple[GenerationConfig, tuple[str, ...]]:
    """Return the checkpoint's own decoding settings, and "name value" of each setting that artifacts do not apply.

    generation_config.json precedes `text_config` in config.json, which precedes the rest of config.json. Null is no setting; nor is a
    default in config.json, where older transformers wrote every default. Without any length, 20 tokens are generated after the prompt, as
    transformers' `generate` does.

    Args:
        directory: The checkpoint's folder.
        config: config.json.
        max_positions: Of the model. A `max_length` above it is cut.
        vocabulary: Number of words of the model.
        source: What the user named, for error messages.

    Raises:
        CheckpointError: A setting has an invalid value.
    """
    file = directory / "generation_config.json"
    own = read_object(file) if file.is_file() else {}
    settings = {
        name: value for section in (config, config.get("text_config") or {}) for name, value in section.items() if _has_effect(name, value)
    }
    settings |= {name: value for name, value in own.items() if value is not None}
    left_out = tuple(f"{name} {settings[name]!r}" for name, neutral in UNSUPPORTED.items() if settings.get(name, neutral) != neutral)
    unknown = {name for name, value in own.items() if value not in (None, False) and not WITHOUT_EFFECT.fullmatch(name)}
    left_out += tuple(f"{name} {own[name]!r}" for name in sorted(unknown - UNSUPPORTED.keys() - set(SUPPORTED)))
    if settings.get("temperature") == 0 and not settings.get("do_sample"):  # greedy search, which its author meant
        left_out += (f"temperature {settings.pop('temperature')!r} without do_sample",)
    if settings.get("do_sample") and settings.get("num_beams", 1) != 1:
        left_out += (f"do_sample {settings.pop('do_sample')!r} with num_beams {settings['num_beams']!r}",)
    supported = {name: settings[name] for name in SUPPORTED if name in settings}
    if "max_length" not in supported:
        supported = {"max_length": min(GenerationConfig.max_length, max_positions), "max_new_tokens": DEFAULT_NEW_TOKENS, **supported}
    defaults, problems = json_dataclass.load(GenerationConfig, supported)
    if defaults is not None and (problem := defaults.vocabulary_problem(vocabulary)):
        problems = [problem]
    elif defaults is not None and defaults.min_length > (longest := min(defaults.max_length_after(1), max_positions)):
        problems = [f"min_length {defaults.min_length} is more than the greatest length, {longest}"]
    elif defaults is not None and defaults.max_length_after(1) > max_positions:
        new = None if defaults.max_new_tokens is None else max_positions - 1
        return replace(defaults, max_length=min(defaults.max_length, max_positions), max_new_tokens=new), left_out
    if defaults is None or problems:
        raise CheckpointError(
            source,
            f"its decoding settings are invalid: {'; '.join(problem.removeprefix('generationconfig: ') for problem in problems)}; "
            "correct generation_config.json or config.json",
        )
    return defaults, left_out


def _has_effect(name: str, value: object) -> bool:
    """Return whether a setting in config.json is neither null nor transformers' default."""
    return value is not None and value != getattr(GenerationConfig(), name, UNSUPPORTED.get(name))
