"""Load the tokenizer of a checkpoint that transformers 4 or 5 saved."""

import json
from pathlib import Path
from typing import Any

import transformers

CONFIG, TOKENIZER = "tokenizer_config.json", "tokenizer.json"


def load_tokenizer(directory: Path) -> Any:  # noqa: ANN401 - transformers is untyped
    """Return transformers' fast tokenizer of a checkpoint.

    transformers 4 cannot read the tokenizer_config.json of transformers 5: `extra_special_tokens` is a list, which
    `additional_special_tokens` was, and the class may be `TokenizersBackend`. Then tokenizer.json suffices.

    Raises:
        Exception: transformers cannot read it; the class is that of its parsers.
    """
    config = json.loads((directory / CONFIG).read_bytes()) if (directory / CONFIG).is_file() else {}
    extra, kind = config.get("extra_special_tokens"), config.get("tokenizer_class")
    if not (directory / TOKENIZER).is_file() or not (isinstance(extra, list) or kind in (None, "TokenizersBackend")):
        return transformers.AutoTokenizer.from_pretrained(directory, use_fast=True, trust_remote_code=False)
    renamed = {"extra_special_tokens": {}, "additional_special_tokens": extra} if isinstance(extra, list) else {}
    return transformers.PreTrainedTokenizerFast.from_pretrained(directory, **renamed)
