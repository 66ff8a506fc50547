"""Image settings, special ids and vocabularies that fit the model, and those that do not."""

import json

import numpy as np
import pytest
from transformers import AutoTokenizer, BlipImageProcessor

from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.export import export
from exporters.families.blip_caption import HEAD, TABLE
from exporters.recipes import find_recipe
from runtimes.errors import CheckpointError
from runtimes.images.reading import preprocess, read_image
from tests.exporters.checkpoint.checkpoint_files import (
    QUERY,
    edit_config,
    edit_json,
    problem_of,
    read_tensors,
    write_tensors,
)


class TestImageSettings:
    """Settings of another family, or written by hand."""

    @pytest.mark.parametrize(
        ("settings", "fact"),
        [
            ({"size": {"shortest_edge": 32}}, '"height": 384'),
            ({"size": {"height": 32, "width": 32, "shortest_edge": 32}}, "size is"),
            ({"size": "32"}, 'size is "32"'),
            ({"size": True}, "size is true"),
            ({"size": {"height": 32.0, "width": 32}}, "size is"),
            ({"resample": None}, "3 (bicubic)"),
            ({"resample": 7}, "resample is 7"),
            ({"resample": "bicubic"}, 'resample is "bicubic"'),
            ({"image_std": [0, 0, 0]}, "image_std is [0, 0, 0]"),
            ({"image_std": 0}, "image_std is 0"),
            ({"image_std": [0.5, 0.5]}, "image_std is [0.5, 0.5]"),
            ({"image_mean": "0.5"}, 'image_mean is "0.5"'),
            ({"image_mean": [0.5, None, 0.5]}, "image_mean is [0.5, null, 0.5]"),
            ({"image_mean": 10**400}, "image_mean is 1000"),
            ({"image_mean": float("nan")}, "image_mean is NaN"),
            ({"rescale_factor": 0}, "rescale_factor is 0"),
            ({"rescale_factor": None}, "rescale_factor is null"),
            ({"do_resize": False}, "do_resize is false"),
            ({"do_rescale": None}, "do_rescale is null"),
            ({"do_center_crop": True, "crop_size": 32}, "do_center_crop is true"),
        ],
        ids=str,
    )
    def test_a_setting_that_is_not_supported_is_named_with_its_cure(self, checkpoint, settings, fact):
        edit_json(checkpoint / "preprocessor_config.json", **settings)
        message = problem_of(checkpoint)
        assert message.startswith(f"preprocessor_config.json: {next(iter(settings))} is ")
        assert fact in message

    def test_all_of_them_are_named(self, checkpoint):
        edit_json(checkpoint / "preprocessor_config.json", size={"longest_edge": 32}, resample=None, image_std=[0, 1, 1])
        assert [key for key in ("size", "resample", "image_std", "image_mean") if f"{key} is" in problem_of(checkpoint)] == [
            "size",
            "resample",
            "image_std",
        ]

    @pytest.mark.parametrize(
        "settings",
        [
            {"size": 32, "image_mean": 0.5, "image_std": 0.25},
            {"size": [32, 32], "image_mean": None, "image_std": None},
            {"image_mean": [0, 0, 0], "image_std": 1, "do_center_crop": False, "do_pad": None, "image_processor_type": "ViTImageProcessor"},
        ],
        ids=str,
    )
    def test_other_notations_give_transformers_pixels(self, checkpoint, drawn_images, settings):
        edit_json(checkpoint / "preprocessor_config.json", **settings)
        spec = open_checkpoint(str(checkpoint)).image
        image = read_image(drawn_images[0].path)
        processor = BlipImageProcessor.from_pretrained(checkpoint)
        expected = processor(image, return_tensors="np").pixel_values[0]
        assert np.abs(preprocess(image, spec) - expected).max() < 1e-5


class TestVocabulary:
    """Ids, tables and tokenizers that do not belong together."""

    @pytest.mark.parametrize("name", ["bos_token_id", "sep_token_id", "pad_token_id"])
    @pytest.mark.parametrize("value", [None, -1, 64, 3.0, [3, 4], True])
    def test_a_special_id_outside_the_vocabulary_is_named(self, checkpoint, name, value):
        edit_config(checkpoint, "text_config", **{name: value})
        message = problem_of(checkpoint)
        assert f"text_config.{name} is {value!r}" in message
        assert "0 to 63 (vocab_size 64)" in message

    def test_a_missing_special_id_has_the_value_of_transformers(self, checkpoint):
        """The start token of transformers is 30522, as in BLIP-base."""
        config = json.loads((checkpoint / "config.json").read_text())
        del config["text_config"]["bos_token_id"]
        edit_json(checkpoint / "config.json", **config)
        assert "text_config.bos_token_id is 30522" in problem_of(checkpoint)

    @pytest.mark.parametrize("vocabulary", [60, 65])
    def test_tables_of_another_size_than_vocab_size_are_named(self, checkpoint, vocabulary):
        edit_config(checkpoint, "text_config", vocab_size=vocabulary, bos_token_id=5)
        tokenizer = json.loads((checkpoint / "tokenizer.json").read_text())
        tokenizer["model"]["vocab"] = {word: number for word, number in tokenizer["model"]["vocab"].items() if number < vocabulary}
        tokenizer["added_tokens"] = [token for token in tokenizer["added_tokens"] if token["id"] < vocabulary]
        (checkpoint / "tokenizer.json").write_text(json.dumps(tokenizer))
        edit_json(checkpoint / "tokenizer_config.json", bos_token=None, additional_special_tokens=[])
        assert f"{TABLE} has 64 rows, and text_config.vocab_size in config.json is {vocabulary}; write 64" in problem_of(checkpoint)

    def test_a_head_of_another_size_than_the_table_is_named(self, checkpoint):
        tensors = read_tensors(checkpoint)
        write_tensors(checkpoint, {**tensors, HEAD: tensors[TABLE][:60].clone()})
        assert f"{HEAD} has shape [60, 32], the config requires [64, 32]" in problem_of(checkpoint)

    def test_a_tokenizer_with_more_words_than_the_table_is_named(self, checkpoint):
        tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        tokenizer.add_tokens(["zebra", "okapi"])
        tokenizer.save_pretrained(checkpoint)
        message = problem_of(checkpoint)
        assert "'zebra' with id 64 and 1 more" in message
        assert "64 words" in message

    def test_a_tokenizer_without_the_two_ids_of_bert_is_refused(self, checkpoint):
        tokenizer = json.loads((checkpoint / "tokenizer.json").read_text())
        tokenizer["post_processor"] = None
        (checkpoint / "tokenizer.json").write_text(json.dumps(tokenizer))
        edit_json(checkpoint / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
        assert "adds 0 ids" in problem_of(checkpoint)

    def test_nothing_is_built_from_weights_that_do_not_fit(self, checkpoint, drawn_images, tmp_path):
        """The weights are checked before transformers runs, which would use random values for missing tensors."""
        tensors = read_tensors(checkpoint)
        del tensors[QUERY]
        write_tensors(checkpoint, tensors)
        steps = []
        with pytest.raises(CheckpointError, match=f"missing tensor {QUERY}"):
            list(
                export(
                    open_checkpoint(str(checkpoint)),
                    [find_recipe("pytorch-fp32")],
                    tmp_path / "out",
                    drawn_images[:1],
                    on_step=steps.append,
                )
            )
        assert steps == []
