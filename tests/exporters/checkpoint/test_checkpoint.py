"""Test opening checkpoints: every file layout gives the same weights, and a checkpoint that is not supported gives a one-line error."""

import os

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.families.blip_caption import HEAD, TABLE
from runtimes.artifact.manifest import ImageSpec, TokenizerSpec
from runtimes.errors import CheckpointError
from runtimes.families.blip import BlipSpec
from tests.checkpoints import main, tiny_vocabulary, write_random_checkpoint
from tests.exporters.checkpoint.checkpoint_files import (
    BIAS,
    QUERY,
    assert_same_weights,
    edit_config,
    problem_of,
    read_tensors,
    write_tensors,
)


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


class TestWhere:
    @pytest.mark.parametrize("source", ["nowhere", "./nowhere/at-all", "/nowhere/at-all", "~/nowhere", "a/b/c"])
    def test_a_path_that_does_not_exist_is_refused(self, source, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert problem_of(source) == "no such checkpoint folder, and not a hub id (owner/name)"

    def test_a_file_is_refused(self, tiny_checkpoint):
        assert "is a file of another kind" in problem_of(tiny_checkpoint / "tokenizer.json")

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
        assert capsys.readouterr().out == f"{tmp_path / 'new'}: contains a checkpoint already; it was not changed\n"
        assert (tmp_path / "new" / "model.safetensors").read_bytes() == before
