"""What is not a BLIP captioner, or uses what the exporters do not support, is refused in one line."""

import json

import pytest
import torch

from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.families.architectures import FAMILIES
from tests.exporters.checkpoint.checkpoint_files import (
    QUERY,
    assert_same_weights,
    edit_config,
    edit_json,
    problem_of,
    read_tensors,
    write_tensors,
)


class TestNotACaptioner:
    @pytest.mark.parametrize(
        ("config", "kind"),
        [
            ({"model_type": "vit", "architectures": ["ViTForImageClassification"]}, "ViTForImageClassification"),
            ({"model_type": "blip", "architectures": ["BlipModel"]}, "BlipModel (BLIP without"),
            ({"model_type": "blip-2", "architectures": ["Blip2ForConditionalGeneration"]}, "(BLIP-2, another architecture"),
            (
                {"model_type": "instructblip", "architectures": ["InstructBlipForConditionalGeneration"]},
                "(InstructBLIP, another architecture",
            ),
            ({"model_type": "git", "architectures": ["GitForCausalLM"]}, "GitForCausalLM (GIT, another"),
            ({"model_type": "git"}, "model type 'git' (GIT, another"),
            ({"model_type": "blip-2"}, "model type 'blip-2' (BLIP-2"),
            ({"model_type": None}, "model type 'None'"),
        ],
    )
    def test_the_error_names_its_architecture(self, checkpoint, config, kind):
        (checkpoint / "config.json").write_text(json.dumps(config))
        message = problem_of(checkpoint)
        assert message.startswith("this is ")
        assert kind in message
        assert all(architecture in message for architecture in FAMILIES)
        assert message.endswith("such as Salesforce/blip-image-captioning-base")

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
        assert f"toolkit export some/base --adapter {checkpoint}" in message

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

    @pytest.mark.parametrize("dtype", [torch.int8, torch.complex64, torch.float8_e4m3fn])
    def test_tensors_in_other_number_formats_are_refused(self, checkpoint, dtype):
        write_tensors(checkpoint, {**read_tensors(checkpoint), QUERY: torch.zeros(32, 32).to(dtype)})
        assert f"{QUERY} has the type {dtype}" in problem_of(checkpoint)

    def test_a_folder_in_place_of_config_or_weights_is_refused(self, checkpoint):
        (checkpoint / "config.json").unlink()
        (checkpoint / "config.json").mkdir()
        assert problem_of(checkpoint).startswith("has no config.json; ")

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
        assert "image is 48x48 px, the model takes 32x32; write the model's size" in problem_of(checkpoint)

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
        assert "tokenizer" in problem_of(checkpoint)
