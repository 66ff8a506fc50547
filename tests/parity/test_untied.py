"""Checkpoints with an untied head: the captions of every recipe against transformers with the same head.

transformers 4.57 replaces the head of such a checkpoint by the word embeddings unless `tie_word_embeddings` is false in its text model's
configuration. The oracle here loads it with that setting, directly from the file.
"""

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
import transformers
from filelock import FileLock

from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.export import export
from exporters.recipes import RECIPES as SHIPPED
from exporters.recipes import find_recipe
from runtimes.artifact.folder import open_artifact
from runtimes.loading import load
from tests.checkpoints import untie

RECIPES = ("pytorch-fp32", "onnx-fp32", "onnx-int8", "onnx-int8-single", "onnx-int4", "pytorch-int8")
OTHERS = tuple(recipe.name for recipe in SHIPPED if recipe.name not in RECIPES)
HEAD = "text_decoder.cls.predictions.decoder.weight"
TABLE = "text_decoder.bert.embeddings.word_embeddings.weight"


@pytest.fixture(scope="module")
def untied(shared_folder, tiny_checkpoint):
    path = shared_folder / "checkpoints" / "tiny-untied"
    with FileLock(shared_folder / "checkpoints.lock"):
        return path if path.exists() else untie(tiny_checkpoint, path, seed=3)


@pytest.fixture(scope="module")
def artifacts(untied, drawn_images, tmp_path_factory):
    recipes = [find_recipe(name) for name in RECIPES]
    paths = export(open_checkpoint(str(untied)), recipes, tmp_path_factory.mktemp("untied"), drawn_images[:6], on_gate_failure="write")
    return dict(zip(RECIPES, paths, strict=True))


@pytest.fixture(scope="module")
def oracle(untied):
    config = transformers.BlipConfig.from_pretrained(untied)
    config.text_config.tie_word_embeddings = False
    model = transformers.BlipForConditionalGeneration.from_pretrained(untied, config=config, dtype=torch.float32).eval()
    assert torch.equal(model.state_dict()[HEAD], safetensors.torch.load_file(untied / "model.safetensors")[HEAD])
    return model


def reference_ids(oracle, captioner, images, **search):
    pixels = torch.from_numpy(np.stack([captioner._pixels(image.path) for image in images]))
    output = oracle.generate(pixel_values=pixels, do_sample=False, **{"max_length": 20, **search}).tolist()
    return [tuple(ids[: ids.index(3, 1) + 1] if 3 in ids[1:] else ids) for ids in output]


@pytest.mark.parametrize("search", [{"num_beams": 1}, {"num_beams": 3}, {"num_beams": 3, "min_length": 12}], ids=str)
@pytest.mark.parametrize("recipe", ["pytorch-fp32", "onnx-fp32"])
def test_fp32_captions_are_those_of_the_untied_model(artifacts, oracle, drawn_images, recipe, search):
    captioner = load(artifacts[recipe], device="cpu")
    captions = captioner.caption([image.path for image in drawn_images], **search)
    assert [caption.token_ids for caption in captions] == reference_ids(oracle, captioner, drawn_images, **search)


def test_the_head_matters(artifacts, tiny_artifacts, drawn_images):
    """The untied captions differ from the tied model's: a lost head would be noticed."""
    paths = [image.path for image in drawn_images]
    untied, tied = load(artifacts["onnx-fp32"]).caption(paths), load(tiny_artifacts["onnx-fp32"]).caption(paths)
    assert [caption.token_ids for caption in untied] != [caption.token_ids for caption in tied]


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_gate_and_the_manifest(artifacts, recipe):
    manifest = open_artifact(artifacts[recipe]).manifest
    assert (manifest.model.tied, manifest.gate["passed"]) == (False, True)


@pytest.mark.full
def test_the_other_recipes(untied, artifacts, drawn_images, tmp_path):
    paths, captions = [image.path for image in drawn_images], [image.texts for image in drawn_images]
    exact = np.concatenate(load(artifacts["onnx-fp32"]).score(paths, captions=captions))
    checkpoint, recipes = open_checkpoint(str(untied)), [find_recipe(name) for name in OTHERS]
    for path in export(checkpoint, recipes, tmp_path, drawn_images[:6], on_gate_failure="write"):
        assert open_artifact(path).manifest.model.tied is False
        assert abs(np.concatenate(load(path).score(paths, captions=captions)) - exact).mean() < 1


@pytest.mark.parametrize("recipe", ["onnx-int8", "onnx-int4", "pytorch-int8"])
@pytest.mark.full
def test_quantized_logits_are_close_to_those_of_the_untied_model(artifacts, drawn_images, recipe):
    """With the tied model's head, or without its embeddings, the log-probabilities would be nats away."""
    paths, captions = [image.path for image in drawn_images], [image.texts for image in drawn_images]
    exact = np.concatenate(load(artifacts["onnx-fp32"]).score(paths, captions=captions))
    quantized = np.concatenate(load(artifacts[recipe]).score(paths, captions=captions))
    tokens = [len(load(artifacts["onnx-fp32"]).text_ids(caption)) - 1 for texts in captions for caption in texts]
    assert abs((quantized - exact).sum() / sum(tokens)) < 0.05


def test_both_tables_are_stored_quantized(artifacts, tiny_artifacts):
    """The untied artifact is larger by one table in the recipe's precision."""
    for recipe, bytes_per_weight in (("onnx-fp32", 4), ("onnx-int8", 1), ("onnx-int4", 0.5)):
        sizes = [open_artifact(paths[recipe]).path_of("decoder-weights").stat().st_size for paths in (artifacts, tiny_artifacts)]
        scales = 64 * 2 if recipe != "onnx-fp32" else 0  # one FP16 or FP32 scale per word and block of 32
        assert 64 * 32 * bytes_per_weight <= sizes[0] - sizes[1] <= 64 * 32 * bytes_per_weight + 4 * scales + 128
    graph = onnx.load(open_artifact(artifacts["onnx-int8"]).path_of("decoder"), load_external_data=False).graph
    floats = [
        tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT and list(tensor.dims) in ([32, 64], [64, 32])
    ]
    assert [tensor.name for tensor in floats] == []


def test_the_dequantized_embedding_is_the_checkpoints_own(artifacts, untied):
    """INT8 word embeddings of the torch artifact are those of the table, not of the head."""
    stored = safetensors.torch.load_file(open_artifact(artifacts["pytorch-int8"]).path_of("weights"))
    table = safetensors.torch.load_file(untied / "model.safetensors")[TABLE]
    restored = stored[TABLE].float() * stored[f"{TABLE}.scales"][:, None]
    assert (restored - table).abs().max() <= table.abs().max() / 127


def test_a_single_graph_generates_the_ids_of_the_split_graphs(artifacts, drawn_images):
    paths = [image.path for image in drawn_images]
    split, single = (load(artifacts[recipe], draft=False).caption(paths) for recipe in ("onnx-int8", "onnx-int8-single"))
    assert [caption.token_ids for caption in single] == [caption.token_ids for caption in split]
