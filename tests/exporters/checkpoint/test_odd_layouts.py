"""Checkpoints as training programs leave them: read where the weights are whole, else refused with the cure by export and info."""

import json
import shutil
import tarfile

import pytest
import torch

from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.families.blip_caption import TABLE
from exporters.writing.output_paths import name_of
from runtimes.errors import ToolkitError
from tests.exporters.checkpoint.checkpoint_files import (
    QUERY,
    assert_same_weights,
    edit_config,
    edit_json,
    problem_of,
    read_tensors,
    write_tensors,
)
from toolkit.info.describe import describe

FC1 = "vision_model.encoder.layers.0.mlp.fc1"


def with_names(checkpoint, change):
    tensors = read_tensors(checkpoint)
    write_tensors(checkpoint, {change(name): tensor for name, tensor in tensors.items()})


def shown_problems(path):
    """What `toolkit info` names as refused."""
    try:
        return "; ".join(describe(path)["refused"])
    except ToolkitError as error:
        return str(error)


def in_shards(checkpoint, *, indexed):
    tensors, names = read_tensors(checkpoint), sorted(read_tensors(checkpoint))
    (checkpoint / "model.safetensors").unlink()
    files = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    for file, part in zip(files, (names[::2], names[1::2]), strict=True):
        write_tensors(checkpoint, {name: tensors[name] for name in part}, file)
    if indexed:
        index = {"weight_map": {name: files[number % 2] for number, name in enumerate(names)}}
        (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    return files


class TestRead:
    @pytest.mark.parametrize(
        "change",
        [
            lambda name: f"_orig_mod.{name}",
            lambda name: f"module._orig_mod.{name}",
            lambda name: name.replace(".layer.0.", ".layer.0._fsdp_wrapped_module."),
            lambda name: f"_fsdp_wrapped_module.{name.replace('.layers.1.', '.layers.1._checkpoint_wrapped_module.')}",
        ],
        ids=["compiled", "compiled in DDP", "FSDP", "activation checkpoints in FSDP"],
    )
    def test_parts_that_wrappers_add_to_names_are_removed(self, checkpoint, tiny_checkpoint, caplog, change):
        with_names(checkpoint, change)
        opened = open_checkpoint(str(checkpoint))
        assert_same_weights(opened.load_weights(), tiny_checkpoint)
        assert opened.renamed
        assert "removed from the names" in caplog.text
        assert any("a training wrapper added it" in line for line in describe(checkpoint)["ignored"])
        assert describe(checkpoint)["tied"]

    def test_weights_in_a_folder_with_settings_need_no_like(self, checkpoint, tiny_checkpoint):
        (checkpoint / "model.safetensors").rename(checkpoint / "best.safetensors")
        assert_same_weights(open_checkpoint(str(checkpoint / "best.safetensors")).load_weights(), tiny_checkpoint)

    @pytest.mark.parametrize("file", ["model_best.pth.tar", "model.pkl"])
    def test_other_usual_suffixes_of_pickles_are_read(self, checkpoint, tiny_checkpoint, file):
        torch.save(read_tensors(checkpoint), checkpoint / file)
        assert_same_weights(open_checkpoint(str(checkpoint / file)).load_weights(), tiny_checkpoint)

    @pytest.mark.parametrize(("key", "other"), [("model", "ema"), ("state_dict", "state_dict_ema")])
    def test_an_average_of_the_weights_beside_them_is_named(self, checkpoint, tiny_checkpoint, caplog, key, other):
        tensors, file = read_tensors(checkpoint), checkpoint / "last.pt"
        averages = {name: tensor / 2 for name, tensor in tensors.items()}
        torch.save({key: tensors, other: averages, "optimizer": {"state": {}, "param_groups": []}}, file)
        assert_same_weights(open_checkpoint(str(file)).load_weights(), tiny_checkpoint)
        assert f"are ignored: {other}\n" in caplog.text
        assert describe(file)["ignored"] == [f"{other}: another state of the model"]

    def test_files_of_a_trainer_beside_the_weights_do_not_matter(self, checkpoint, tiny_checkpoint):
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
            (checkpoint / name).touch()
        assert_same_weights(open_checkpoint(str(checkpoint)).load_weights(), tiny_checkpoint)

    def test_a_snapshot_of_the_cache_is_named_after_its_repository(self, tmp_path):
        snapshot = tmp_path / "models--someone--my-blip" / "snapshots" / "0123abcd"
        snapshot.mkdir(parents=True)
        assert name_of(str(snapshot)) == "my-blip"


def quantized_int8(checkpoint):
    tensors = read_tensors(checkpoint)
    write_tensors(checkpoint, tensors | {f"{FC1}.weight": torch.zeros(64, 32, dtype=torch.int8), f"{FC1}.SCB": torch.ones(64)})
    return "export the model that it was quantized from"


def quantized_fp8(checkpoint):
    weight = {f"{FC1}.weight": torch.zeros(64, 32).to(torch.float8_e4m3fn), f"{FC1}.weight_scale": torch.ones(1)}
    write_tensors(checkpoint, read_tensors(checkpoint) | weight)
    return "export the model that it was quantized from"


def pruned(checkpoint):
    with_names(checkpoint, lambda name: name.replace(f"{FC1}.weight", f"{FC1}.weight_orig"))
    return "torch.nn.utils.prune.remove"


def parametrized(checkpoint):
    with_names(checkpoint, lambda name: name.replace(f"{FC1}.weight", f"{FC1}.parametrizations.weight.original0"))
    return "remove_parametrizations"


def flat_parameters(checkpoint):
    write_tensors(checkpoint, {"_fsdp_wrapped_module._flat_param": torch.zeros(9)})
    return "FULL_STATE_DICT"


def shards_without_an_index(checkpoint):
    in_shards(checkpoint, indexed=False)
    return "no model.safetensors.index.json; copy or download it"


def a_shard_twice(checkpoint):
    first, second = in_shards(checkpoint, indexed=True)
    shutil.copy(checkpoint / first, checkpoint / second)
    return f"copy or download {second} again"


def a_table_with_more_rows(checkpoint):
    tensors = read_tensors(checkpoint)
    write_tensors(checkpoint, tensors | {TABLE: torch.zeros(128, 32)})
    return "write 128"


def an_adapter_beside_the_model(checkpoint):
    (checkpoint / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "some/base"}))
    return f"add --adapter {checkpoint} to merge it"


def only_files_of_a_trainer(checkpoint):
    (checkpoint / "model.safetensors").unlink()
    for name in ("optimizer.pt", "training_args.bin"):
        (checkpoint / name).touch()
    return "copy or download the weights"


def deepspeed_states(checkpoint):
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "mp_rank_00_model_states.pt").touch()
    return "zero_to_fp32.py"


def no_config(checkpoint):
    (checkpoint / "config.json").unlink()
    return "name model.safetensors in it, and by --like"


def links_that_lead_nowhere(checkpoint):
    (checkpoint / "config.json").unlink()
    (checkpoint / "config.json").symlink_to("../../blobs/0123")
    return "cp -L"


def onnx_in_a_subfolder(checkpoint):
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "onnx").mkdir()
    (checkpoint / "onnx" / "decoder_model.onnx").touch()
    return "onnx/decoder_model.onnx, a format that is not read"


def no_class(checkpoint):
    edit_json(checkpoint / "config.json", architectures=None)
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({key: value for key, value in config.items() if key != "model_type"}))
    return 'write the class of its tensors: "architectures": ["BlipForConditionalGeneration"]'


def own_class(checkpoint):
    edit_json(checkpoint / "config.json", architectures=["BlipWithLoss"])
    return "write that class under architectures"


def class_of_a_matcher(checkpoint):
    edit_json(checkpoint / "config.json", architectures=["BlipForImageTextRetrieval"])
    return "copy its own config.json"


def text_decoder_alone(checkpoint):
    edit_json(checkpoint / "config.json", architectures=["BlipTextLMHeadModel"], model_type="blip_text_model")
    return "the text decoder alone; save the whole model"


def image_processor_of_clip(checkpoint):
    edit_json(checkpoint / "preprocessor_config.json", image_processor_type="CLIPImageProcessor", do_center_crop=True, crop_size=32)
    return "this is the file of a CLIPImageProcessor: copy that of the model that was fine-tuned"


def lengths_that_contradict_each_other(checkpoint):
    (checkpoint / "generation_config.json").write_text(json.dumps({"max_length": 8, "min_length": 12}))
    return "correct generation_config.json"


def byte_order_mark(checkpoint):
    file = checkpoint / "config.json"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    return "save it as UTF-8 without one"


REFUSED = [
    *(quantized_int8, quantized_fp8, pruned, parametrized, flat_parameters, shards_without_an_index, a_shard_twice),
    *(a_table_with_more_rows, an_adapter_beside_the_model, only_files_of_a_trainer, deepspeed_states, no_config),
    *(links_that_lead_nowhere, onnx_in_a_subfolder, no_class, own_class, class_of_a_matcher, text_decoder_alone),
    *(image_processor_of_clip, lengths_that_contradict_each_other, byte_order_mark),
]


@pytest.mark.parametrize("change", REFUSED, ids=lambda change: change.__name__)
def test_the_message_is_the_cure(checkpoint, change):
    cure = change(checkpoint)
    assert cure in problem_of(checkpoint)
    assert cure in shown_problems(checkpoint)


def test_a_missing_part_of_the_model_is_one_problem(checkpoint):
    write_tensors(checkpoint, {name: tensor for name, tensor in read_tensors(checkpoint).items() if name.startswith("text_decoder.")})
    assert "missing tensor vision_model.* (all 30); save the whole model" in problem_of(checkpoint)


def test_an_integer_tensor_that_the_model_lacks_is_not_taken_for_a_quantized_weight(checkpoint):
    write_tensors(checkpoint, read_tensors(checkpoint) | {"global_step": torch.tensor(5)})
    assert "unknown tensor global_step" in problem_of(checkpoint)


def test_a_file_of_another_image_processor_is_named_if_its_settings_fit(checkpoint, caplog):
    edit_json(checkpoint / "preprocessor_config.json", image_processor_type="ViTImageProcessor")
    open_checkpoint(str(checkpoint))
    assert "the file of a ViTImageProcessor" in caplog.text


@pytest.mark.parametrize(
    ("name", "cure"),
    [("config.json", "name its folder"), ("all.tar.gz", "unpack it"), ("all.zip", "unpack it"), ("q4.gguf", ".gguf")],
)
def test_a_file_of_a_checkpoint_or_around_it_is_named_with_the_cure(checkpoint, name, cure):
    (checkpoint / name).touch()
    assert cure in problem_of(checkpoint / name)
    assert cure in shown_problems(checkpoint / name) or name == "all.tar.gz"  # a package has this suffix


def test_an_archive_of_a_checkpoint_is_no_package(checkpoint, tmp_path):
    with tarfile.open(tmp_path / "all.tar.gz", "w:gz") as archive:
        archive.add(checkpoint, "folder")
    assert "does not start with manifest.json" in shown_problems(tmp_path / "all.tar.gz")
    assert "unpack it" in shown_problems(tmp_path / "all.tar.gz")


def test_a_quantized_weight_without_other_marks_is_named(checkpoint):
    write_tensors(checkpoint, read_tensors(checkpoint) | {QUERY: torch.zeros(32, 32, dtype=torch.int8)})
    assert f"{QUERY} has the type torch.int8; " in problem_of(checkpoint)
    assert "quantized (I8)" in shown_problems(checkpoint)


@pytest.mark.parametrize(
    ("section", "sizes", "named"),
    [
        ("vision_config", {"num_attention_heads": 5}, "vision_config.hidden_size is 32"),
        ("text_config", {"num_attention_heads": 0}, "num_attention_heads, which is 0"),
        ("vision_config", {"patch_size": 64}, "vision_config.image_size is 32"),
    ],
)
def test_sizes_that_contradict_each_other_are_named(checkpoint, section, sizes, named):
    edit_config(checkpoint, section, **sizes)
    assert named in problem_of(checkpoint)
    assert named in shown_problems(checkpoint)


def test_sizes_of_the_vocabulary_are_compared_before_the_tokenizer(checkpoint):
    edit_config(checkpoint, "text_config", vocab_size=63)
    assert "write 64" in problem_of(checkpoint)
