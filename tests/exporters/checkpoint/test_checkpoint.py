"""Test opening checkpoints: every file layout gives the same weights, and a checkpoint that is not supported gives a one-line error."""

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer, BlipImageProcessor

from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.export import export
from exporters.families.blip_caption import HEAD, TABLE
from exporters.recipes import find_recipe
from runtimes.artifact.manifest import ImageSpec, TokenizerSpec
from runtimes.errors import CheckpointError
from runtimes.families.blip import BlipSpec
from runtimes.images.reading import preprocess, read_image
from tests.checkpoints import main, tiny_vocabulary, write_random_checkpoint

BIAS = "text_decoder.cls.predictions.bias"
QUERY = "text_decoder.bert.encoder.layer.0.attention.self.query.weight"


@pytest.fixture
def checkpoint(tiny_checkpoint, tmp_path) -> Path:
    """A copy of the tiny checkpoint that a test may damage."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "tiny"))


def read_tensors(directory: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(directory / "model.safetensors")


def write_tensors(directory: Path, tensors: dict[str, torch.Tensor], name: str = "model.safetensors") -> None:
    safetensors.torch.save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, directory / name)


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_config(directory: Path, part: str, **changes: object) -> None:
    config = json.loads((directory / "config.json").read_text())
    edit_json(directory / "config.json", **{part: {**config[part], **changes}})


def assert_same_weights(weights: dict[str, torch.Tensor], directory: Path) -> None:
    """Assert that the weights are those of a checkpoint's file, and that the head is the word embeddings."""
    expected = read_tensors(directory)
    assert set(weights) == {*expected, HEAD}
    for name, tensor in expected.items():
        assert torch.equal(weights[name], tensor.float())
    assert torch.equal(weights[HEAD], expected[TABLE].float())


def problem_of(directory: Path | str, **options: bool) -> str:
    """Return the error message, one line, of opening a checkpoint and reading its weights."""
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(str(directory), **options).load_weights()
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(directory))
    return message.removeprefix(str(directory)).removeprefix(": ")


class TestReads:
    def test_sizes_ids_and_image_rules_of_the_tiny_checkpoint(self, tiny_checkpoint):
        opened = open_checkpoint(str(tiny_checkpoint))
        assert opened.model == BlipSpec(
            image_px=32,
            patch_px=16,
            vision_width=32,
            vision_inner=64,
            vision_layers=2,
            vision_heads=4,
            vision_activation="gelu",
            vision_norm_eps=1e-5,
            text_width=32,
            text_inner=64,
            text_layers=2,
            text_heads=4,
            text_activation="gelu",
            text_norm_eps=1e-12,
            vocabulary=64,
            max_positions=32,
        )
        assert (opened.model.vision_tokens, opened.model.head_width) == (5, 8)
        assert opened.tokenizer == TokenizerSpec(bos_id=62, eos_id=3, pad_id=0)
        assert opened.image == ImageSpec(
            height_px=32,
            width_px=32,
            resample="bicubic",
            mean=(0.48145466, 0.4578275, 0.40821073),
            std=(0.26862954, 0.26130258, 0.27577711),
            rescale=1 / 255,
        )

    def test_ids_of_the_shipped_checkpoint(self, mini_checkpoint):
        opened = open_checkpoint(str(mini_checkpoint))
        assert opened.tokenizer == TokenizerSpec(bos_id=5263, eos_id=3, pad_id=0)
        assert opened.image.mean == (0.485, 0.456, 0.406)
        assert (opened.model.vision_layers, opened.model.text_layers, opened.model.vision_tokens) == (9, 4, 257)

    def test_weights_are_the_tensors_of_the_file_and_the_head_is_the_word_embeddings(self, tiny_checkpoint):
        assert_same_weights(open_checkpoint(str(tiny_checkpoint)).load_weights(), tiny_checkpoint)

    def test_fp16_files_are_read_as_fp32(self, mini_checkpoint):
        assert {tensor.dtype for tensor in read_tensors(mini_checkpoint).values()} == {torch.float16}
        weights = open_checkpoint(str(mini_checkpoint)).load_weights()
        assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
        assert_same_weights(weights, mini_checkpoint)

    def test_the_name_is_the_last_part_and_no_path_is_recorded(self, tiny_checkpoint):
        for given in (tiny_checkpoint, f"{tiny_checkpoint}/", os.path.relpath(tiny_checkpoint)):
            opened = open_checkpoint(str(given))
            assert (opened.name, opened.source.model, opened.source.revision) == ("tiny", "tiny", None)

    def test_tokenizer_is_that_of_transformers(self, mini_checkpoint):
        tokenizer = Tokenizer.from_buffer(open_checkpoint(str(mini_checkpoint)).tokenizer_json)
        reference = AutoTokenizer.from_pretrained(mini_checkpoint)
        for text in ("a picture of ", "A DOG, on the bed!", "naïve café 😀", "", "unfathomable xyzzy [SEP]"):
            assert tokenizer.encode(text).ids == reference(text).input_ids

    def test_a_vocabulary_file_replaces_tokenizer_json(self, checkpoint):
        expected = open_checkpoint(str(checkpoint)).tokenizer_json
        (checkpoint / "tokenizer.json").unlink()
        (checkpoint / "vocab.txt").write_text("\n".join(tiny_vocabulary()) + "\n")
        tokenizer = Tokenizer.from_buffer(open_checkpoint(str(checkpoint)).tokenizer_json)
        text = "a picture of two dogs, sitting on the grass"
        assert tokenizer.encode(text).ids == Tokenizer.from_buffer(expected).encode(text).ids


class TestAliases:
    def test_position_buffers_are_left_out(self, checkpoint, tiny_checkpoint):
        positions = {"text_decoder.bert.embeddings.position_ids": torch.arange(32)[None]}
        positions["vision_model.embeddings.position_ids"] = torch.arange(5)[None]
        write_tensors(checkpoint, {**read_tensors(checkpoint), **positions})
        assert_same_weights(open_checkpoint(str(checkpoint)).load_weights(), tiny_checkpoint)

    def test_a_tied_head_may_be_stored_with_the_word_embeddings(self, checkpoint, tiny_checkpoint):
        tensors = read_tensors(checkpoint)
        second = {HEAD: tensors[TABLE].clone(), "text_decoder.cls.predictions.decoder.bias": tensors[BIAS].clone()}
        write_tensors(checkpoint, {**tensors, **second})
        assert_same_weights(open_checkpoint(str(checkpoint)).load_weights(), tiny_checkpoint)

    def test_a_tied_head_may_be_stored_instead_of_the_word_embeddings(self, checkpoint, tiny_checkpoint):
        tensors = read_tensors(checkpoint)
        tensors[HEAD] = tensors.pop(TABLE)
        tensors["text_decoder.cls.predictions.decoder.bias"] = tensors.pop(BIAS)
        write_tensors(checkpoint, tensors)
        assert_same_weights(open_checkpoint(str(checkpoint)).load_weights(), tiny_checkpoint)

    def test_an_untied_head_is_read(self, checkpoint):
        tensors = read_tensors(checkpoint)
        write_tensors(checkpoint, {**tensors, HEAD: tensors[TABLE] + 1})
        opened = open_checkpoint(str(checkpoint))
        weights = opened.load_weights()
        assert not opened.model.tied
        assert torch.equal(weights[HEAD], tensors[TABLE] + 1)
        assert torch.equal(weights[TABLE], tensors[TABLE])

    def test_two_different_biases_of_the_head_are_refused(self, checkpoint):
        tensors = read_tensors(checkpoint)
        write_tensors(checkpoint, {**tensors, "text_decoder.cls.predictions.decoder.bias": tensors[BIAS] + 1})
        assert "text_decoder.cls.predictions.decoder.bias" in problem_of(checkpoint)


class TestTensors:
    def test_missing_unknown_and_misshaped_tensors_are_all_named(self, checkpoint):
        tensors = read_tensors(checkpoint)
        del tensors[QUERY]
        tensors["text_decoder.pooler.weight"] = torch.zeros(2, 2)
        tensors[BIAS] = torch.zeros(65)
        write_tensors(checkpoint, tensors)
        assert problem_of(checkpoint).startswith(
            f"weights do not fit the config: missing tensor {QUERY}; unknown tensor text_decoder.pooler.weight; "
            f"{BIAS} has shape [65], the config requires [64]"
        )

    def test_the_first_five_of_many_problems_are_named_and_the_others_counted(self, checkpoint):
        edit_config(checkpoint, "text_config", num_hidden_layers=3)
        message = problem_of(checkpoint)
        # A decoder layer has 10 linear layers and 3 norms, each with a weight and a bias.
        assert message.count("missing tensor text_decoder.bert.encoder.layer.2.") == 5
        assert "; and 21 more; " in message

    @pytest.mark.parametrize("length", [0, 7, 100, 3000, -1])
    def test_a_truncated_file_is_reported_as_damaged(self, checkpoint, length):
        path = checkpoint / "model.safetensors"
        path.write_bytes(path.read_bytes()[:length])
        assert "model.safetensors: damaged or unreadable: " in f"{checkpoint}{problem_of(checkpoint)}"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_tensor_that_is_not_finite_is_named(checkpoint, value):
    tensors = read_tensors(checkpoint)
    tensors[QUERY][0, 0] = value
    write_tensors(checkpoint, tensors)
    assert f"{QUERY} contains NaN or infinite values" in problem_of(checkpoint)


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_a_pointer_of_git_lfs_is_named_with_the_cure(checkpoint, file):
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / file).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 990\n")
    assert "git lfs pull" in problem_of(checkpoint)


class TestBin:
    @pytest.fixture
    def with_bin(self, checkpoint) -> Path:
        torch.save(read_tensors(checkpoint), checkpoint / "pytorch_model.bin")
        (checkpoint / "model.safetensors").unlink()
        return checkpoint

    def test_it_is_read_and_the_loader_is_named(self, with_bin, tiny_checkpoint, caplog):
        assert_same_weights(open_checkpoint(str(with_bin)).load_weights(), tiny_checkpoint)
        assert "weights-only loader" in caplog.text

    def test_shards_are_read(self, with_bin, tiny_checkpoint):
        tensors = torch.load(with_bin / "pytorch_model.bin", weights_only=True)
        (with_bin / "pytorch_model.bin").unlink()
        names = sorted(tensors)
        parts = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
        for file, part in parts.items():
            torch.save({name: tensors[name] for name in part}, with_bin / file)
        index = {"metadata": {}, "weight_map": {name: file for file, part in parts.items() for name in part}}
        (with_bin / "pytorch_model.bin.index.json").write_text(json.dumps(index))
        assert_same_weights(open_checkpoint(str(with_bin)).load_weights(), tiny_checkpoint)

    def test_it_is_refused_if_only_safetensors_may_be_read(self, with_bin):
        assert "--safetensors-only" in problem_of(with_bin, safetensors_only=True)

    def test_it_is_ignored_beside_safetensors(self, checkpoint, tiny_checkpoint):
        (checkpoint / "pytorch_model.bin").write_bytes(b"nonsense")
        assert_same_weights(open_checkpoint(str(checkpoint)).load_weights(), tiny_checkpoint)

    def test_code_in_it_does_not_run(self, with_bin, tmp_path):
        class Touch:
            def __reduce__(self):
                return os.system, (f"touch {tmp_path / 'ran'}",)

        (with_bin / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Touch()}, protocol=2))
        assert "pytorch_model.bin: damaged or unreadable: " in f"{with_bin}{problem_of(with_bin)}"
        assert not (tmp_path / "ran").exists()

    def test_a_file_without_tensors_is_refused(self, with_bin):
        for content in ({"epoch": 3}, [torch.zeros(2)], {1: torch.zeros(2)}, {"model": {"layer": {"weight": torch.zeros(2)}}}):
            torch.save(content, with_bin / "pytorch_model.bin")
            assert problem_of(with_bin) == "/pytorch_model.bin: contains something other than named tensors"


class TestShards:
    @pytest.fixture
    def sharded(self, checkpoint) -> Path:
        tensors = read_tensors(checkpoint)
        (checkpoint / "model.safetensors").unlink()
        names = sorted(tensors)
        parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
        for file, part in parts.items():
            write_tensors(checkpoint, {name: tensors[name] for name in part}, file)
        index = {"metadata": {}, "weight_map": {name: file for file, part in parts.items() for name in part}}
        (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
        return checkpoint

    def test_they_give_the_same_weights(self, sharded, tiny_checkpoint):
        assert_same_weights(open_checkpoint(str(sharded)).load_weights(), tiny_checkpoint)

    def test_all_must_exist(self, sharded):
        (sharded / "model-00002-of-00002.safetensors").unlink()
        assert problem_of(sharded) == "model.safetensors.index.json lists files that are missing; copy or download all shards"

    def test_they_must_be_in_the_same_folder(self, sharded):
        edit_json(sharded / "model.safetensors.index.json", weight_map={"a": "../tiny/model-00001-of-00002.safetensors"})
        assert problem_of(sharded) == "model.safetensors.index.json lists files that are missing; copy or download all shards"

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": ["a"]}'])
    def test_the_index_must_be_readable(self, sharded, content):
        (sharded / "model.safetensors.index.json").write_text(content)
        assert problem_of(sharded).startswith("cannot read model.safetensors.index.json: ")


class TestNotACaptioner:
    @pytest.mark.parametrize(
        ("config", "kind"),
        [
            ({"model_type": "vit", "architectures": ["ViTForImageClassification"]}, "ViTForImageClassification"),
            (
                {"model_type": "blip", "architectures": ["BlipForQuestionAnswering"]},
                "BlipForQuestionAnswering (BLIP that answers questions)",
            ),
            ({"model_type": "blip", "architectures": ["BlipForImageTextRetrieval"]}, "BLIP that compares images with texts"),
            ({"model_type": "blip", "architectures": ["BlipModel"]}, "BlipModel (BLIP without"),
            ({"model_type": "blip-2", "architectures": ["Blip2ForConditionalGeneration"]}, "(BLIP-2, another architecture"),
            (
                {"model_type": "instructblip", "architectures": ["InstructBlipForConditionalGeneration"]},
                "(InstructBLIP, another architecture",
            ),
            ({"model_type": "git", "architectures": ["GitForCausalLM"]}, "GitForCausalLM (GIT, another"),
            ({"model_type": "git"}, "model type 'git' (GIT, another"),
            ({"model_type": "blip-2"}, "model type 'blip-2' (BLIP-2"),
            ({}, "model type 'None'"),
            ({"architectures": 3}, "model type 'None'"),
        ],
    )
    def test_the_error_names_its_architecture(self, checkpoint, config, kind):
        (checkpoint / "config.json").write_text(json.dumps(config))
        message = problem_of(checkpoint)
        assert message.startswith("this is ")
        assert kind in message
        assert message.endswith("export a BlipForConditionalGeneration, such as Salesforce/blip-image-captioning-base")

    @pytest.mark.parametrize(
        ("name", "fact"),
        [
            ("qformer.encoder.layer.0.attention.weight", "BLIP-2"),
            ("itm_head.weight", "compares images with texts"),
            ("text_encoder.encoder.layer.0.attention.self.query.weight", "answers questions"),
            ("text_model.embeddings.LayerNorm.weight", "without a captioner's decoder"),
            ("text_decoder.bert.encoder.layer.0.attention.self.query.lora_A.default.weight", "merge_and_unload()"),
            ("text_decoder.bert.encoder.layer.0.attention.self.query.base_layer.weight", "merge_and_unload()"),
        ],
    )
    @pytest.mark.parametrize("prefix", ["", "base_model.model."])
    def test_a_tensor_of_another_model_names_it(self, checkpoint, name, fact, prefix):
        tensors = {**read_tensors(checkpoint), name: torch.zeros(2, 2)}
        write_tensors(checkpoint, {prefix + each: tensor for each, tensor in tensors.items()})
        message = problem_of(checkpoint)
        assert name in message
        assert fact in message

    @pytest.mark.parametrize("with_config", [False, True])
    def test_a_folder_with_only_an_adapter_is_refused_with_the_cure(self, checkpoint, with_config):
        (checkpoint / "model.safetensors").unlink()
        (checkpoint / "adapter_model.safetensors").touch()
        (checkpoint / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "some/base", "peft_type": "LORA"}))
        if not with_config:
            (checkpoint / "config.json").unlink()
        message = problem_of(checkpoint)
        assert "PEFT adapter of some/base" in message
        assert "merge_and_unload()" in message

    @pytest.mark.parametrize(
        ("file", "cure"),
        [
            ("tf_model.h5", "save_pretrained"),
            ("flax_model.msgpack", "save_pretrained"),
            ("model.onnx", "save_pretrained"),
            ("model.fp16.safetensors", "--like"),
            ("model_base_caption.pth", "--like"),
        ],
    )
    def test_weights_in_another_file_are_named_with_the_cure(self, checkpoint, file, cure):
        (checkpoint / "model.safetensors").rename(checkpoint / file)
        message = problem_of(checkpoint)
        assert file in message
        assert cure in message

    @pytest.mark.parametrize("section", ["text_config", "vision_config"])
    def test_a_section_of_config_that_is_no_object_is_named(self, checkpoint, section):
        edit_json(checkpoint / "config.json", **{section: [1]})
        assert f"{section} in config.json is not a JSON object" in problem_of(checkpoint)

    @pytest.mark.parametrize("value", [None, "64", 64.0])
    def test_a_vocabulary_size_that_is_no_number_is_named(self, checkpoint, value):
        edit_config(checkpoint, "text_config", vocab_size=value)
        assert f"text_config.vocab_size is {value!r}" in problem_of(checkpoint)

    @pytest.mark.parametrize("dtype", [torch.int8, torch.complex64])
    def test_tensors_that_are_not_floating_point_are_refused(self, checkpoint, dtype):
        write_tensors(checkpoint, {**read_tensors(checkpoint), QUERY: torch.zeros(32, 32, dtype=dtype)})
        assert f"{QUERY} has the type {dtype}" in problem_of(checkpoint)

    def test_a_folder_in_place_of_config_or_weights_is_refused(self, checkpoint):
        (checkpoint / "config.json").unlink()
        (checkpoint / "config.json").mkdir()
        assert problem_of(checkpoint).startswith("cannot read config.json: ")

    def test_quantized_weights_are_refused(self, checkpoint):
        edit_json(checkpoint / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})
        assert "quantized (bitsandbytes)" in problem_of(checkpoint)

    def test_missing_tensors_are_refused_with_the_cure(self, checkpoint):
        tensors = {name: tensor for name, tensor in read_tensors(checkpoint).items() if name.startswith("text_decoder.")}
        write_tensors(checkpoint, tensors)
        message = problem_of(checkpoint)
        assert "missing tensor vision_model." in message
        assert "save the whole model with save_pretrained" in message

    def test_a_blip_config_without_an_architecture_is_treated_as_a_captioner(self, checkpoint, tiny_checkpoint):
        edit_json(checkpoint / "config.json", architectures=None)
        assert_same_weights(open_checkpoint(str(checkpoint)).load_weights(), tiny_checkpoint)

    @pytest.mark.parametrize("content", ["", "{", "[1]", "\x00"])
    def test_an_unreadable_config_is_reported(self, checkpoint, content):
        (checkpoint / "config.json").write_text(content)
        assert problem_of(checkpoint).startswith("cannot read config.json: ")

    def test_an_empty_directory_has_no_config(self, tmp_path):
        assert problem_of(tmp_path).startswith("cannot read config.json: ")

    def test_missing_weights_are_reported(self, checkpoint):
        (checkpoint / "model.safetensors").unlink()
        assert problem_of(checkpoint).startswith("has neither model.safetensors nor pytorch_model.bin; ")


class TestUnsupported:
    def test_an_unknown_activation_is_reported_with_the_supported_ones(self, checkpoint):
        edit_config(checkpoint, "vision_config", hidden_act="silu")
        assert (
            problem_of(checkpoint)
            == "config.json cannot be exported: activation 'silu' is not supported; supported: gelu, gelu_new, quick_gelu, relu"
        )

    def test_relative_positions_are_refused(self, checkpoint):
        edit_config(checkpoint, "text_config", position_embedding_type="relative_key")
        assert (
            problem_of(checkpoint)
            == "config.json cannot be exported: text position embeddings are 'relative_key'; only 'absolute' is supported"
        )

    def test_a_processor_of_another_size_than_the_model_is_refused(self, checkpoint):
        edit_json(checkpoint / "preprocessor_config.json", size={"height": 48, "width": 48})
        assert problem_of(checkpoint) == "its image processor does not fit the model: image is 48x48 px, the model takes 32x32"

    def test_a_processor_that_does_not_normalize_is_refused(self, checkpoint):
        edit_json(checkpoint / "preprocessor_config.json", do_normalize=False)
        assert "do_normalize is false" in problem_of(checkpoint)

    @pytest.mark.parametrize("content", ["{", "[]", "\x00", '{"image_processor": 1}'])
    def test_a_damaged_processor_gives_a_one_line_error(self, checkpoint, content):
        (checkpoint / "preprocessor_config.json").write_text(content)
        assert problem_of(checkpoint).startswith("cannot read its image processor, preprocessor_config.json: ")

    def test_a_missing_processor_gives_a_one_line_error(self, checkpoint):
        (checkpoint / "preprocessor_config.json").unlink()
        assert problem_of(checkpoint).startswith("has neither preprocessor_config.json nor processor_config.json; ")

    def test_a_damaged_or_missing_tokenizer_gives_a_one_line_error(self, checkpoint):
        (checkpoint / "tokenizer.json").write_text("{")
        assert problem_of(checkpoint).startswith("cannot read its tokenizer: ")
        (checkpoint / "tokenizer.json").unlink()
        assert problem_of(checkpoint).startswith("cannot read its tokenizer: ")


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
        assert f"{TABLE} has shape [64, 32], the config requires [{vocabulary}, 32]" in problem_of(checkpoint)

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


class TestWhere:
    @pytest.mark.parametrize("source", ["nowhere", "./nowhere/at-all", "/nowhere/at-all", "~/nowhere", "a/b/c"])
    def test_a_path_that_does_not_exist_is_refused(self, source, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert problem_of(source) == "no such checkpoint folder, and not a hub id (owner/name)"

    def test_a_file_is_refused(self, tiny_checkpoint):
        assert problem_of(tiny_checkpoint / "config.json").startswith("no such checkpoint folder")

    def test_a_hub_id_that_is_not_cached_gives_a_one_line_error_offline(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert problem_of("nobody/no-such-blip").startswith("no such directory, and the download from the hub failed: ")

    def test_a_revision_is_for_hub_ids_only(self, tiny_checkpoint):
        with pytest.raises(CheckpointError, match="--revision"):
            open_checkpoint(str(tiny_checkpoint), "main")


class TestRandomCheckpoints:
    def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_bytes(self, tiny_checkpoint, tmp_path):
        same, other = (write_random_checkpoint(tmp_path / str(seed), "tiny", seed) for seed in (11, 12))
        for file in tiny_checkpoint.iterdir():
            assert (same / file.name).read_bytes() == file.read_bytes()
        assert (other / "model.safetensors").read_bytes() != (same / "model.safetensors").read_bytes()

    def test_the_command_does_not_replace_an_existing_checkpoint(self, tmp_path, capsys):
        arguments = ["tiny", str(tmp_path / "new")]
        assert main([*arguments, "--seed", "1"]) == 0
        before = (tmp_path / "new" / "model.safetensors").read_bytes()
        capsys.readouterr()
        assert main([*arguments, "--seed", "2"]) == 0
        assert capsys.readouterr().out == f"{tmp_path / 'new'}: holds a checkpoint already; left as it is\n"
        assert (tmp_path / "new" / "model.safetensors").read_bytes() == before
