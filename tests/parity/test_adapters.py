"""PEFT adapters: the weights are those of peft's own merge, and captions those of transformers' `generate` with it."""

import json
import shutil
import subprocess
import sys

import peft
import pytest
import torch
import transformers
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.export import export
from exporters.families.blip_reference import HfCaptioner
from exporters.families.hf_text_model import load_transformers_model
from exporters.recipes import RECIPES
from runtimes.errors import CheckpointError
from runtimes.loading import load
from tests.checkpoints import untie
from toolkit.cli import main
from toolkit.records.record_file import read_records

ATTENTION = ["query", "value", "qkv"]
HEAD = "text_decoder.cls.predictions.decoder"
CONFIGS = {
    "lora": peft.LoraConfig(r=4, target_modules=ATTENTION),
    "all-linear": peft.LoraConfig(
        r=2, target_modules=["query", "key", "value", "dense", "qkv", "projection", "fc1", "fc2"], bias="lora_only"
    ),
    "dora": peft.LoraConfig(r=4, target_modules=ATTENTION, use_dora=True),
    "rslora": peft.LoraConfig(r=4, target_modules=ATTENTION, use_rslora=True, rank_pattern={"query": 2}),
    "whole-layer": peft.LoraConfig(r=4, target_modules=["query"], modules_to_save=["transform"]),
    "adalora": peft.AdaLoraConfig(target_modules=ATTENTION, init_r=4, target_r=2, total_step=10),
    "loha": peft.LoHaConfig(r=4, target_modules=ATTENTION),
    "lokr": peft.LoKrConfig(r=4, target_modules=ATTENTION),
    "ia3": peft.IA3Config(target_modules=["key", "value"], feedforward_modules=[]),
}


@pytest.fixture(scope="module", params=["tied", "untied"])
def base(request, tiny_checkpoint, tmp_path_factory):
    return tiny_checkpoint if request.param == "tied" else untie(tiny_checkpoint, tmp_path_factory.mktemp("base") / "untied", seed=3)


def transformers_model(directory, *, tied=True):
    return load_transformers_model(directory, torch.float32, tied=tied).eval()


def write_adapter(base, config, folder, *, tied=True, safe=True):
    """Save an adapter whose parameters are random, as after training."""
    model = peft.get_peft_model(transformers_model(base, tied=tied), config)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(folder, safe_serialization=safe, save_embedding_layers=False)
    return folder


def is_tied(base):
    return open_checkpoint(str(base)).model.tied


@pytest.mark.parametrize("name", ["lora", *(pytest.param(name, marks=pytest.mark.full) for name in CONFIGS if name != "lora")])
def test_weights_equal_those_of_peft(base, tmp_path, name):
    tied = is_tied(base)
    adapter = write_adapter(base, CONFIGS[name], tmp_path / name, tied=tied)
    checkpoint = open_checkpoint(str(base), adapter=adapter)
    expected = peft.PeftModel.from_pretrained(transformers_model(base, tied=tied), adapter).merge_and_unload().state_dict()
    own = checkpoint.load_weights()
    assert checkpoint.model.tied == tied
    for tensor in own.keys() & expected.keys():
        torch.testing.assert_close(own[tensor].reshape(expected[tensor].shape), expected[tensor], rtol=0, atol=1e-6)
    assert len(own.keys() & expected.keys()) > 30
    before = open_checkpoint(str(base)).load_weights()
    assert any(not torch.equal(before[tensor], own[tensor]) for tensor in own)
    assert checkpoint.name == f"{base.name}-{name}"
    assert checkpoint.source.sha256 != open_checkpoint(str(base)).source.sha256


@pytest.mark.full
@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
def test_captions_equal_those_of_transformers(base, drawn_images, tmp_path, safe):
    tied = is_tied(base)
    adapter = write_adapter(base, CONFIGS["lora"], tmp_path / "lora", tied=tied, safe=safe)
    checkpoint = open_checkpoint(str(base), adapter=adapter)
    recipes = [recipe for recipe in RECIPES if recipe.name in ("pytorch-fp32", "onnx-fp32")]
    artifacts = list(export(checkpoint, recipes, tmp_path / "out", drawn_images[:4]))
    reference, plain = HfCaptioner(base, threads=1, tied=tied), HfCaptioner(base, threads=1, tied=tied)
    reference.model = peft.PeftModel.from_pretrained(transformers_model(base, tied=tied), adapter).merge_and_unload()
    reference.model.text_decoder.generation_config = transformers.GenerationConfig()
    paths = [image.path for image in drawn_images[:8]]
    for settings in ({}, {"num_beams": 3, "min_length": 6}):
        expected = [caption.token_ids for caption in reference.caption(paths, **settings)]
        assert expected != [caption.token_ids for caption in plain.caption(paths, **settings)]
        for artifact in artifacts:
            assert [caption.token_ids for caption in load(artifact, device="cpu").caption(paths, **settings)] == expected


@pytest.mark.full
def test_an_adapter_of_the_head_unties_it(tiny_checkpoint, drawn_images, tmp_path):
    """Before the merge, the head of the adapter's model has the adapter and the word embeddings do not."""
    adapter = write_adapter(tiny_checkpoint, peft.LoraConfig(r=4, target_modules=[HEAD]), tmp_path / "head")
    checkpoint = open_checkpoint(str(tiny_checkpoint), adapter=adapter)
    assert not checkpoint.model.tied
    reference = HfCaptioner(tiny_checkpoint, threads=1)
    reference.model = peft.PeftModel.from_pretrained(transformers_model(tiny_checkpoint), adapter).base_model.model
    reference.model.text_decoder.generation_config = transformers.GenerationConfig()
    recipe = next(recipe for recipe in RECIPES if recipe.name == "pytorch-fp32")
    (artifact,) = export(checkpoint, [recipe], tmp_path / "out", drawn_images[:4])
    paths = [image.path for image in drawn_images[:6]]
    assert [caption.token_ids for caption in load(artifact).caption(paths)] == [caption.token_ids for caption in reference.caption(paths)]


@pytest.mark.full
def test_commands_take_the_adapter(tiny_checkpoint, drawn_images, tmp_path):
    """The baseline of the benchmark has the adapter too."""
    adapter = write_adapter(tiny_checkpoint, CONFIGS["lora"], tmp_path / "lora")
    options = ["--adapter", str(adapter), "--recipe", "pytorch-fp32", "--output", str(tmp_path), "--on-gate-failure", "write"]
    result = CliRunner().invoke(main, ["export", str(tiny_checkpoint), *options], prog_name="toolkit")
    assert result.exit_code == 0, result.output
    artifact = tmp_path / "tiny-lora-pytorch-fp32"
    assert result.stdout == f"{artifact}\n"
    output, images = tmp_path / "records.jsonl", str(drawn_images[0].path.parent)
    options = ["--checkpoint", str(tiny_checkpoint), "--adapter", str(adapter), "--images", images, "--limit", "4", "--repeat", "1"]
    result = CliRunner().invoke(main, ["bench", str(artifact), *options, "--output", str(output)], prog_name="toolkit")
    assert result.exit_code == 0, result.output
    own, baseline = read_records(output)
    assert [image.caption for image in own.quality] == [image.caption for image in baseline.quality]
    assert own.subject.checkpoint_sha256 == baseline.subject.checkpoint_sha256


@pytest.mark.full
def test_without_peft_the_cure_is_named(tiny_checkpoint, tmp_path):
    adapter = write_adapter(tiny_checkpoint, CONFIGS["lora"], tmp_path / "lora")
    script = "import sys; sys.modules['peft'] = None; from toolkit.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", script, "export", str(tiny_checkpoint), "--adapter", str(adapter), "--output", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.splitlines()[-1] == "Error: peft is needed for --adapter: pip install 'blip-toolkit[adapter]'"


def changed(adapter, folder, **values):
    shutil.copytree(adapter, folder)
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **values}), encoding="utf-8")
    return folder


def test_refusals_name_the_cure(tiny_checkpoint, tmp_path):
    adapter = write_adapter(tiny_checkpoint, CONFIGS["lora"], tmp_path / "adapter")
    pickled = write_adapter(tiny_checkpoint, CONFIGS["lora"], tmp_path / "pickled", safe=False)
    part = shutil.copytree(adapter, tmp_path / "part")
    tensors = load_file(part / "adapter_model.safetensors")
    save_file(dict(list(tensors.items())[1:]), part / "adapter_model.safetensors")
    pointer = shutil.copytree(adapter, tmp_path / "pointer")
    (pointer / "adapter_model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    empty = shutil.copytree(adapter, tmp_path / "empty")
    (empty / "adapter_model.safetensors").unlink()
    cases = [
        (tiny_checkpoint, {}, "no adapter_config.json"),
        (changed(adapter, tmp_path / "prefix", peft_type="PREFIX_TUNING"), {}, "PREFIX_TUNING"),
        (changed(adapter, tmp_path / "code", megatron_config={}, megatron_core="antigravity"), {}, "names code to run"),
        (changed(adapter, tmp_path / "other", target_modules=["q_proj"]), {}, "export the model that it was trained on"),
        (changed(adapter, tmp_path / "rank", r=5), {}, "export the model that it was trained on"),
        (changed(adapter, tmp_path / "type", r="x"), {}, "export the model that it was trained on"),
        (part, {}, "lora_"),
        (pointer, {}, "git lfs pull"),
        (empty, {}, "copy or download"),
        (pickled, {"safetensors_only": True}, "--safetensors-only"),
    ]
    for folder, options, problem in cases:
        with pytest.raises(CheckpointError) as caught:
            open_checkpoint(str(tiny_checkpoint), adapter=folder, **options)
        assert problem in str(caught.value)
        assert str(caught.value).count("\n") == 0
