"""Texts of token ids equal those of the checkpoint's own tokenizer, with `clean_up_tokenization_spaces` on and off."""

import json
import shutil

import numpy as np
import pytest
from transformers import AutoTokenizer

from exporters.checkpoint.checkpoint import open_checkpoint
from runtimes.decoding.tokenizer import CaptionTokenizer

SEQUENCES = 5_000


@pytest.mark.parametrize("clean", [True, False, None])
@pytest.mark.parametrize("model", ["tiny", "mini"])
def test_texts_equal_transformers(tiny_checkpoint, mini_checkpoint, tmp_path, model, clean):
    directory = shutil.copytree(tiny_checkpoint if model == "tiny" else mini_checkpoint, tmp_path / "checkpoint")
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
