"""Load the tokenizer of a checkpoint that transformers 4 or 5 saved."""

import json
from pathlib import Path
from typing import Any

import transformers

CONFIG, TOKENIZER = "tokenizer_config.json", "tokenizer.json"


def load_tokenizer(directory: Path, pad_id: int | None = None) -> Any:  # noqa: ANN401 - transformers is untyped
    """Return transformers' fast tokenizer of a checkpoint.

    transformers 4 cannot read the tokenizer_config.json of transformers 5: the list `extra_special_tokens` was called
    `additional_special_tokens`, and the class `TokenizersBackend` was called `PreTrainedTokenizerFast`. Then tokenizer.json suffices.

    Args:
        directory: The checkpoint's folder.
        pad_id: Id that pads shorter texts, if the files name none.

    Raises:
        Exception: transformers cannot read it; the class is that of its parsers.
    """
    config = json.loads((directory / CONFIG).read_bytes()) if (directory / CONFIG).is_file() else {}
    extra, kind = config.get("extra_special_tokens"), config.get("tokenizer_class", "TokenizersBackend")
    known = not isinstance(extra, list) and kind != "TokenizersBackend"
    if known or hasattr(transformers, "TokenizersBackend") or not (directory / TOKENIZER).is_file():
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory, use_fast=True, trust_remote_code=False)
    else:
        tokenizer = _of_transformers_5(directory, config)
    if tokenizer.pad_token is None and pad_id is not None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad_id)
    return tokenizer


def _of_transformers_5(directory: Path, config: dict[str, Any]) -> Any:  # noqa: ANN401
    """Return the tokenizer of a checkpoint that transformers 5 saved, in transformers 4."""
    extra = config.get("extra_special_tokens")
    settings = {key: config[key] for key in config if key.endswith("_token") or key == "clean_up_tokenization_spaces"}
    special = {key: value["content"] if isinstance(value, dict) else value for key, value in settings.items()}
    extra = [token["content"] if isinstance(token, dict) else token for token in extra] if isinstance(extra, list) else []
    return transformers.PreTrainedTokenizerFast(tokenizer_file=str(directory / TOKENIZER), additional_special_tokens=extra, **special)
