"""`CaptionTokenizer` returns the ids and the text of transformers' tokenizer for the same checkpoint."""

import json

import pytest

from runtimes.artifact.manifest import TokenizerSpec
from runtimes.decoding.tokenizer import CaptionTokenizer
from runtimes.errors import RequestError

WORDS = [
    "a picture of ",
    "a picture of",
    "two dogs",
    "A Man Riding a HORSE",
    "it's a cat, isn't it? (yes!)",
    "a t-shirt; 3.5 km/h & 100% wool...",
    "zyzzyva qwertyuiop",
    "snowboarder skateboarding",
    "café naïve Ångström",
    "Straße İstanbul ﬁne",
    "狗在草地上",
    "a 狗 and a cat",
    "dog 🐕 with 👨‍👩‍👧",
    "  spaces\tand\nlines  ",
    "zero\u200bwidth and\u00a0hard",
    "\x00control\x07",
    "don't \"quote\" 'me'",
    "a [SEP] b [DEC] c [MASK]",
    "##ing #hash",
    "e\u0301 combined",
    "",
    " ",
    "word " * 80,
]


@pytest.fixture(scope="module")
def reference(mini_checkpoint):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(mini_checkpoint, use_fast=True)


@pytest.fixture(scope="module")
def config(mini_checkpoint):
    return json.loads((mini_checkpoint / "config.json").read_text())["text_config"]


@pytest.fixture(scope="module")
def tokenizer(mini_checkpoint, config):
    spec = TokenizerSpec(bos_id=config["bos_token_id"], eos_id=config["sep_token_id"], pad_id=config["pad_token_id"])
    return CaptionTokenizer((mini_checkpoint / "tokenizer.json").read_bytes(), spec)


@pytest.mark.parametrize("words", WORDS)
def test_ids(tokenizer, reference, config, words):
    ids = reference(words, truncation=False)["input_ids"]
    assert ids[0] == reference.cls_token_id
    assert ids[-1] == reference.sep_token_id
    assert tokenizer.prompt_ids(words) == [config["bos_token_id"], *ids[1:-1]]
    assert tokenizer.text_ids(words) == [config["bos_token_id"], *ids[1:-1], reference.sep_token_id]


def test_no_prompt(tokenizer, config):
    assert tokenizer.prompt_ids(None) == [config["bos_token_id"]]
    assert tokenizer.prompt_ids("") == [config["bos_token_id"]]
    assert tokenizer.text_ids("") == [config["bos_token_id"], config["sep_token_id"]]


@pytest.mark.parametrize("words", WORDS)
def test_text_of_ids(tokenizer, reference, words):
    ids = tokenizer.text_ids(words)
    assert tokenizer.text(ids) == reference.decode(ids, skip_special_tokens=True)


def test_text_of_any_ids(tokenizer, reference):
    """Every token of the vocabulary, alone and after a word."""
    alone = [tokenizer.text([token]) for token in range(len(reference))]
    assert alone == [reference.decode([token], skip_special_tokens=True) for token in range(len(reference))]
    (dog,) = reference.convert_tokens_to_ids(["dog"])
    after_dog = [tokenizer.text([dog, token]) for token in range(len(reference))]
    assert after_dog == [reference.decode([dog, token], skip_special_tokens=True) for token in range(len(reference))]


def test_text_by_value(tokenizer):
    assert tokenizer.text(tokenizer.text_ids("Two dogs, on a bed.")) == "two dogs, on a bed."
    assert tokenizer.text(()) == ""
    assert tokenizer.text(tokenizer.prompt_ids("a picture of ")) == "a picture of"


def test_truncation_and_padding_of_the_file_are_ignored(mini_checkpoint, tokenizer, config):
    """Some tokenizer files set truncation and padding; both are ignored."""
    parsed = json.loads((mini_checkpoint / "tokenizer.json").read_text())
    parsed["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    parsed["padding"] = {
        "strategy": {"Fixed": 12},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
    spec = TokenizerSpec(bos_id=config["bos_token_id"], eos_id=config["sep_token_id"], pad_id=config["pad_token_id"])
    other = CaptionTokenizer(json.dumps(parsed).encode(), spec)
    for words in ("a dog", "a man riding a wave on top of a surfboard"):
        assert other.text_ids(words) == tokenizer.text_ids(words)


@pytest.mark.parametrize(
    ("template", "left", "right", "expected"),
    [
        ("{text}", 0, 0, ["cls", "a", "dog", "sep"]),
        ("[BOS] {text} [EOS]", 1, 1, ["bos", "a", "dog", "sep"]),
        ("{text} [PAD]", 1, 0, ["a", "dog", "sep", "pad"]),
        ("[BOS] {text}", 3, 2, ["bos"]),
    ],
)
def test_the_template_and_the_dropped_ids_are_read_from_the_manifest(mini_checkpoint, reference, config, template, left, right, expected):
    ids = {"bos": config["bos_token_id"], "sep": reference.sep_token_id, "cls": reference.cls_token_id, "pad": config["pad_token_id"]}
    ids |= {word: reference.convert_tokens_to_ids(word) for word in ("a", "dog")}
    spec = TokenizerSpec(template=template, drop_left=left, drop_right=right, bos_id=ids["bos"], eos_id=ids["sep"], pad_id=ids["pad"])
    assert CaptionTokenizer((mini_checkpoint / "tokenizer.json").read_bytes(), spec).prompt_ids("a dog") == [ids[name] for name in expected]


@pytest.mark.parametrize("text", [3, b"two dogs", ["two", "dogs"]])
def test_a_text_that_is_not_a_str_is_refused(tokenizer, text):
    for method in (tokenizer.prompt_ids, tokenizer.text_ids):
        with pytest.raises(RequestError, match=f"must be a str, not {type(text).__name__}"):
            method(text)
