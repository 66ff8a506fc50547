"""Texts of token ids equal those of the checkpoint's own tokenizer, with `clean_up_tokenization_spaces` on and off."""

import json
import shutil

import numpy as np
import pytest
from transformers import AutoTokenizer

from exporters.checkpoint.checkpoint import open_checkpoint
from runtimes.decoding.tokenizer import CaptionTokenizer

SEQUENCES = 5_000


def plain(tokenizer):
    """Leave the tokenizer of the checkpoint as it is."""


def cased(tokenizer):
    tokenizer["normalizer"] |= {"lowercase": False, "strip_accents": False}
    rename(tokenizer, ["A", "Cat", "##Cat", "NASA", "\u00c9t\u00e9", "iPhone", "##X"])


def marks(tokenizer):
    rename(tokenizer, ["'", "''", "n't", "'m", "'s", "'ve", "'re", "##'", "-", "##.", "...", "(", ")", "\u2019", "!?"])


def other_scripts(tokenizer):
    rename(tokenizer, ["\u732b", "\u72ac", "##\u732b", "\u043a\u043e\u0442", "##\u043a\u0430", "\u0642\u0637", "e\u0301", "\U0001f408"])


def added_tokens(tokenizer):
    """A word that was added by `add_tokens`, and a special token."""
    plain = {"single_word": False, "lstrip": False, "rstrip": False}
    first, second = rename(tokenizer, ["labradoodle", "<extra>"])
    tokenizer["added_tokens"] += [
        {"id": first, "content": "labradoodle", "normalized": True, "special": False, **plain},
        {"id": second, "content": "<extra>", "normalized": False, "special": True, **plain},
    ]
    tokenizer["added_tokens"].sort(key=lambda token: token["id"])


def rename(tokenizer, words):
    """Give words to the ids of the last words of the vocabulary; return the ids."""
    vocabulary = tokenizer["model"]["vocab"]
    special = {token["content"] for token in tokenizer["added_tokens"]}
    replaced = [word for word in sorted(vocabulary, key=vocabulary.get) if word not in special | set(words)][-len(words) :]
    ids = [vocabulary.pop(word) for word in replaced]
    for word, number in zip(words, ids, strict=True):
        vocabulary[word] = number
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    return ids


@pytest.mark.parametrize("clean", [True, False, None])
@pytest.mark.parametrize(
    ("model", "change"),
    [("tiny", plain), ("mini", plain), ("tiny", cased), ("tiny", marks), ("tiny", other_scripts), ("tiny", added_tokens)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_texts_equal_transformers(tiny_checkpoint, mini_checkpoint, tmp_path, model, change, clean):
    directory = shutil.copytree(tiny_checkpoint if model == "tiny" else mini_checkpoint, tmp_path / "checkpoint")
    content = json.loads((directory / "tokenizer.json").read_text())
    change(content)
    (directory / "tokenizer.json").write_text(json.dumps(content))
    config = json.loads((directory / "tokenizer_config.json").read_text())
    config.pop("clean_up_tokenization_spaces", None)
    (directory / "tokenizer_config.json").write_text(
        json.dumps(config if clean is None else {**config, "clean_up_tokenization_spaces": clean})
    )
    reference = AutoTokenizer.from_pretrained(directory)
    checkpoint = open_checkpoint(str(directory))
    assert checkpoint.tokenizer.clean_up_tokenization_spaces is bool(clean)
    tokenizer = CaptionTokenizer(checkpoint.tokenizer_json, checkpoint.tokenizer)
    generator, words = np.random.default_rng(0), reference.get_vocab()
    marks = [words[word] for word in (".", ",", "?", "!", "'", "s", "m", "n", "t", "re", "ve", "##s", "a") if word in words]
    for length in generator.integers(0, 25, SEQUENCES):
        ids = np.where(generator.random(length) < 0.5, generator.choice(marks, length), generator.integers(0, len(words), length)).tolist()
        assert tokenizer.text(ids) == reference.decode(ids, skip_special_tokens=True)
