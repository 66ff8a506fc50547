"""Files of weights as BLIP's authors publish them: the captions of exports against transformers with the same weights."""

import shutil

import pytest
import safetensors.torch
import torch

from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.export import export
from exporters.families.blip_reference import HfCaptioner
from exporters.recipes import find_recipe
from runtimes.errors import CheckpointError
from runtimes.loading import load
from tests.checkpoints import untie

TABLE = "text_decoder.bert.embeddings.word_embeddings.weight"
HEAD = "text_decoder.cls.predictions.decoder.weight"


def original_names(tensors, layers):
    """Return the tensors by the names of the authors' `BLIP_Decoder`, written out one by one."""
    names = {
        "vision_model.embeddings.class_embedding": "visual_encoder.cls_token",
        "vision_model.embeddings.position_embedding": "visual_encoder.pos_embed",
    }
    for kind in ("weight", "bias"):
        names[f"vision_model.embeddings.patch_embedding.{kind}"] = f"visual_encoder.patch_embed.proj.{kind}"
        names[f"vision_model.post_layernorm.{kind}"] = f"visual_encoder.norm.{kind}"
        for layer in range(layers):
            target, original = f"vision_model.encoder.layers.{layer}", f"visual_encoder.blocks.{layer}"
            names[f"{target}.layer_norm1.{kind}"] = f"{original}.norm1.{kind}"
            names[f"{target}.layer_norm2.{kind}"] = f"{original}.norm2.{kind}"
            names[f"{target}.self_attn.qkv.{kind}"] = f"{original}.attn.qkv.{kind}"
            names[f"{target}.self_attn.projection.{kind}"] = f"{original}.attn.proj.{kind}"
            names[f"{target}.mlp.fc1.{kind}"] = f"{original}.mlp.fc1.{kind}"
            names[f"{target}.mlp.fc2.{kind}"] = f"{original}.mlp.fc2.{kind}"
    vision = {name for name in tensors if not name.startswith("text_decoder.")}
    assert vision == set(names)
    return {names.get(name, name): tensor for name, tensor in tensors.items()}


def write_original(checkpoint, file):
    """Write a checkpoint's weights as the authors do: under "model", with the head beside the word embeddings and a buffer of positions."""
    tensors = safetensors.torch.load_file(checkpoint / "model.safetensors")
    bias = tensors["text_decoder.cls.predictions.bias"]
    written = {HEAD: tensors[TABLE].clone(), "text_decoder.cls.predictions.decoder.bias": bias.clone(), **original_names(tensors, 2)}
    written["text_decoder.bert.embeddings.position_ids"] = torch.arange(32)[None]
    torch.save({"model": written, "epoch": 4, "config": {"image_size": 32}}, file)
    return file


def captions(captioner, images):
    return [
        [caption.token_ids for caption in captioner.caption([image.path for image in images], prompt=prompt, num_beams=beams)]
        for prompt in (None, "a picture of")
        for beams in (1, 3)
    ]


@pytest.mark.parametrize("tied", [pytest.param(True, marks=pytest.mark.full), False])
def test_captions_are_those_of_the_same_weights_in_transformers(tiny_checkpoint, drawn_images, tmp_path, tied, caplog):
    same = tiny_checkpoint if tied else untie(tiny_checkpoint, tmp_path / "untied", seed=3)
    opened = open_checkpoint(str(write_original(same, tmp_path / "model_caption.pth")), like=str(tiny_checkpoint))
    recipes = [find_recipe("onnx-fp32"), find_recipe("onnx-int8")]
    paths = list(export(opened, recipes, tmp_path / "out", drawn_images[:4], on_gate_failure="write"))
    assert [path.name for path in paths] == ["model_caption-onnx-fp32", "model_caption-onnx-int8"]
    captioner = load(paths[0], device="cpu", threads=1)
    assert captioner.manifest.gate["passed"]
    assert captioner.manifest.model.tied is tied
    assert (captioner.manifest.source.model, captioner.manifest.source.revision) == ("model_caption", None)
    assert captions(captioner, drawn_images) == captions(HfCaptioner(same, 1, tied=tied), drawn_images)
    assert "weights-only loader" in caplog.text


@pytest.mark.parametrize("name", ["pytorch.pt", "weights.safetensors"])
def test_one_file_with_transformers_names(tiny_checkpoint, tmp_path, name):
    tensors = safetensors.torch.load_file(tiny_checkpoint / "model.safetensors")
    if name.endswith(".pt"):
        torch.save({"state_dict": {f"module.{key}": tensor for key, tensor in tensors.items()}, "epoch": 1}, tmp_path / name)
    else:
        shutil.copy(tiny_checkpoint / "model.safetensors", tmp_path / name)
    weights = open_checkpoint(str(tmp_path / name), like=str(tiny_checkpoint)).load_weights()
    assert all(torch.equal(weights[key].reshape(tensor.shape), tensor) for key, tensor in tensors.items())


def test_refusals(tiny_checkpoint, tmp_path):
    file = write_original(tiny_checkpoint, tmp_path / "a.pth")
    cases = [
        ({}, "--like"),  # no published captioner has a vision encoder of this width
        ({"like": "nobody/no-such-blip"}, "--like"),
        ({"like": str(tiny_checkpoint), "revision": "main"}, "--revision"),
        ({"like": str(tiny_checkpoint), "safetensors_only": True}, "--safetensors-only"),
    ]
    for options, fact in cases:
        with pytest.raises(CheckpointError, match=fact):
            open_checkpoint(str(file), **options)
    with pytest.raises(CheckpointError, match="--like"):
        open_checkpoint(str(tiny_checkpoint), like=str(tiny_checkpoint))
    tensors = torch.load(file, weights_only=True)["model"]
    torch.save({"model": {**tensors, "text_encoder.embeddings.word_embeddings.weight": torch.zeros(2, 2)}}, file)
    with pytest.raises(CheckpointError, match="answers questions"):
        open_checkpoint(str(file), like=str(tiny_checkpoint))
