"""Layouts of checkpoints: the captions of exports against transformers.

transformers 4.57 cannot read all of these files. The oracle then loads the tiny checkpoint, of which they are copies with the same weights.
"""

import json
import shutil

import numpy as np
import pytest
import safetensors.torch
import torch
from transformers import BlipForConditionalGeneration

from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.export import export
from exporters.families.blip_reference import HfCaptioner
from exporters.families.hf_text_model import load_transformers_model
from exporters.recipes import find_recipe
from runtimes.errors import CheckpointError
from runtimes.loading import load
from tests.checkpoints import save_as_transformers_5, untie
from toolkit.bench.baseline import find_baseline
from toolkit.bench.cases import transformers_opener
from toolkit.bench.job import CaseJob

PROMPTS = (None, "a picture of")


def with_tensors(checkpoint, folder, change):
    """Write a copy of a checkpoint whose tensors are changed by a function of all of them."""
    shutil.copytree(checkpoint, folder)
    tensors = change(safetensors.torch.load_file(folder / "model.safetensors"))
    safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def with_prefix(checkpoint, folder, prefix):
    return with_tensors(checkpoint, folder, lambda tensors: {prefix + name: tensor for name, tensor in tensors.items()})


def exported_captions(folder, images, output):
    """Export with a gate that requires transformers' token ids; return the artifact's and the gate's captioner's token ids."""
    checkpoint = open_checkpoint(str(folder))
    (path,) = export(checkpoint, [find_recipe("onnx-fp32")], output, images[:4])
    captioner = load(path, device="cpu", threads=1)
    reference = HfCaptioner(folder, 1, tied=checkpoint.model.tied, weights=checkpoint.renamed_weights())
    return [
        [caption.token_ids for caption in each.caption([image.path for image in images], prompt=prompt)]
        for each in (captioner, reference)
        for prompt in PROMPTS
    ]


def transformers_captions(model, captioner, images):
    """Return greedy token ids of transformers' model, without and with the prompt, from the pixels of a captioner."""
    pixels = torch.from_numpy(np.stack([captioner._pixels(image.path)[0].numpy() for image in images]))
    rows = []
    for prompt in PROMPTS:
        ids = {} if prompt is None else {"input_ids": torch.tensor([[*captioner.text_ids(prompt)]] * len(images))}
        output = model.generate(pixel_values=pixels, do_sample=False, num_beams=1, max_length=20, **ids).tolist()
        rows.append([tuple(row[: row.index(3, 1) + 1] if 3 in row[1:] else row) for row in output])
    return rows


@pytest.fixture(scope="module")
def expected(tiny_checkpoint, drawn_images):
    """The tiny checkpoint's own captions by transformers."""
    model = BlipForConditionalGeneration.from_pretrained(tiny_checkpoint, dtype=torch.float32).eval()
    rows = transformers_captions(model, HfCaptioner(tiny_checkpoint, 1), drawn_images)
    assert len(set(rows[0])) > 4
    return rows


@pytest.mark.parametrize("tokenizer_class", ["BertTokenizer", "TokenizersBackend"])
def test_files_of_transformers_5(tiny_checkpoint, drawn_images, expected, tmp_path, tokenizer_class):
    folder = save_as_transformers_5(tiny_checkpoint, tmp_path / "saved", tokenizer_class)
    assert exported_captions(folder, drawn_images, tmp_path) == [*expected, *expected]


def test_tokenizer_json_suffices(tiny_checkpoint, drawn_images, expected, tmp_path):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "saved")
    (folder / "tokenizer_config.json").unlink()
    assert exported_captions(folder, drawn_images, tmp_path) == [*expected, *expected]


def test_a_tokenizer_without_blips_own_tokens(tiny_checkpoint, drawn_images, expected, tmp_path):
    """[DEC] and [ENC] are in the word embeddings alone, as in checkpoints that were saved with BERT's tokenizer."""
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "saved")
    tokenizer = json.loads((folder / "tokenizer.json").read_bytes())
    tokenizer["added_tokens"] = [token for token in tokenizer["added_tokens"] if token["id"] < 62]
    tokenizer["model"]["vocab"] = {word: number for word, number in tokenizer["model"]["vocab"].items() if number < 62}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = json.loads((folder / "tokenizer_config.json").read_bytes())
    kept = {name: value for name, value in settings.items() if name not in ("bos_token", "additional_special_tokens")}
    (folder / "tokenizer_config.json").write_text(json.dumps(kept))
    assert exported_captions(folder, drawn_images, tmp_path) == [*expected, *expected]


def test_the_image_processor_is_read_from_the_first_file_if_there_are_two(tiny_checkpoint, tmp_path):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "saved")
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "BlipProcessor", "image_processor": {"size": 64}}))
    assert open_checkpoint(str(folder)).image == open_checkpoint(str(tiny_checkpoint)).image


@pytest.mark.parametrize("prefix", ["module.", "model.", "base_model.model.", "module.model.", "_orig_mod."])
@pytest.mark.full
def test_prefixes_of_training_wrappers(tiny_checkpoint, drawn_images, expected, tmp_path, prefix, caplog):
    folder = with_prefix(tiny_checkpoint, tmp_path / "saved", prefix)
    assert exported_captions(folder, drawn_images, tmp_path) == [*expected, *expected]
    assert prefix.rstrip(".") in caplog.text


def test_tensors_beside_a_prefix_are_ignored(tiny_checkpoint, tmp_path, caplog):
    extra = {"loss.weight": torch.ones(2), "step": torch.ones(1)}
    folder = with_tensors(with_prefix(tiny_checkpoint, tmp_path / "prefix", "model."), tmp_path / "saved", lambda tensors: tensors | extra)
    checkpoint, plain = open_checkpoint(str(folder)), open_checkpoint(str(tiny_checkpoint))
    assert all(torch.equal(tensor, checkpoint.load_weights()[name]) for name, tensor in plain.load_weights().items())
    assert "loss.weight" in caplog.text


def test_two_models_in_one_file_are_refused(tiny_checkpoint, tmp_path):
    rename = lambda tensors: {f"{prefix}.{name}": tensor for name, tensor in tensors.items() for prefix in ("model", "ema")}  # noqa: E731
    folder = with_tensors(
        tiny_checkpoint, tmp_path / "saved", lambda tensors: {name: tensor.clone() for name, tensor in rename(tensors).items()}
    )
    with pytest.raises(CheckpointError, match=r"ema\. and model\."):
        open_checkpoint(str(folder))


def test_an_untied_head_with_a_prefix(tiny_checkpoint, drawn_images, tmp_path):
    untied = untie(tiny_checkpoint, tmp_path / "untied", seed=3)
    folder = with_prefix(untied, tmp_path / "saved", "module.")
    oracle = HfCaptioner(untied, 1, tied=False)
    captions = [[caption.token_ids for caption in oracle.caption([image.path for image in drawn_images], prompt)] for prompt in PROMPTS]
    assert exported_captions(folder, drawn_images, tmp_path) == [*captions, *captions]
    assert not open_checkpoint(str(folder)).model.tied
    # transformers 5 does not share the bias of an untied head between its two names.
    state = load_transformers_model(folder, torch.float32, tied=False, weights=open_checkpoint(str(folder)).renamed_weights()).state_dict()
    assert torch.equal(state["text_decoder.cls.predictions.decoder.bias"], state["text_decoder.cls.predictions.bias"])


def test_a_prefix_of_only_some_tensors_is_refused(tiny_checkpoint, tmp_path):
    rename = lambda tensors: {f"module.{name}" if "vision" in name else name: tensor for name, tensor in tensors.items()}  # noqa: E731
    folder = with_tensors(tiny_checkpoint, tmp_path / "saved", rename)
    with pytest.raises(ValueError, match="missing tensor vision_model"):
        open_checkpoint(str(folder)).load_weights()


def test_the_benchmarks_baseline_has_the_renamed_weights(tiny_checkpoint, tiny_artifacts, drawn_images, expected, tmp_path):
    folder = with_prefix(tiny_checkpoint, tmp_path / "saved", "module.")
    case = find_baseline(str(folder), None, tiny_artifacts["onnx-fp32"])
    nothing = dict.fromkeys(("prompt", "forced_tokens", "min_length", "max_length"))
    files = {"opener": "", "path": str(case.checkpoint), "images": (), "references": ()}
    run = {"device": "cpu", "threads": 1, "batch_size": 1, "num_beams": 1, "warmup": 0, "score": False}
    job = CaseJob(**files, **run, **nothing, tied=case.tied, renamed=case.renamed)
    captioner = transformers_opener(case.checkpoint, job)().model
    assert [caption.token_ids for caption in captioner.caption([image.path for image in drawn_images])] == expected[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files(tiny_checkpoint, drawn_images, tmp_path, dtype):
    """The oracle is transformers in FP32 on the same file."""
    folder = with_tensors(tiny_checkpoint, tmp_path / "saved", lambda tensors: {name: tensor.to(dtype) for name, tensor in tensors.items()})
    model = BlipForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    rows = transformers_captions(model, HfCaptioner(tiny_checkpoint, 1), drawn_images)
    assert exported_captions(folder, drawn_images, tmp_path) == [*rows, *rows]
