"""Peers: captions compared with transformers, the layout of their graphs, and missing packages."""

import ast
import re
import sys

import numpy as np
import onnx
import pytest
import torch
import transformers
from click.testing import CliRunner

from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.families.blip_reference import HfCaptioner
from runtimes.artifact.folder import open_artifact
from runtimes.errors import ArtifactCorruptError, OutputExistsError, RequestError, UnknownNameError
from tests.paths import ROOT
from tests.toolkit.bench.test_runner import run
from tests.toolkit.stats.run_records import record
from toolkit.bench.peers.__main__ import main
from toolkit.bench.peers.catalogue import PEERS, find_peer
from toolkit.bench.peers.folder import PEER_NAME, Sources, folder_bytes, opener, prepare, read_folder
from toolkit.bench.peers.table import render_peers
from toolkit.bench.runner import artifacts_in, plan
from toolkit.records.record_file import read_records

NEEDS_NO_EXTRA = ("hf-int8", "hf-bf16", "ort-recompute-fp32")
TYPES = {"hf-bf16": torch.bfloat16, "ort-recompute-fp32": torch.float32}


@pytest.fixture(scope="module")
def sources(tiny_checkpoint, tiny_artifacts, drawn_images):
    graphs = open_artifact(tiny_artifacts["onnx-fp32"])
    return Sources(checkpoint=open_checkpoint(str(tiny_checkpoint)), graphs=graphs, calibration=[image.path for image in drawn_images])


@pytest.fixture(scope="module")
def peers(sources, tmp_path_factory):
    output = tmp_path_factory.mktemp("peers")
    return {name: prepare(find_peer(name), sources, output, overwrite=False) for name in NEEDS_NO_EXTRA}


@pytest.fixture(scope="module")
def reference(tiny_checkpoint):
    """Peer → model of transformers, made from the checkpoint as its documentation describes."""
    models = {
        name: transformers.BlipForConditionalGeneration.from_pretrained(tiny_checkpoint, dtype=dtype).eval()
        for name, dtype in TYPES.items()
    }
    model = transformers.BlipForConditionalGeneration.from_pretrained(tiny_checkpoint).eval()
    models["hf-int8"] = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    return models


def pixels_of(image, checkpoint, dtype):
    processor = transformers.BlipImageProcessor.from_pretrained(checkpoint)
    from PIL import Image

    with Image.open(image.path) as image:
        return processor(image.convert("RGB"), return_tensors="pt").pixel_values.to(dtype)


@pytest.mark.parametrize("name", NEEDS_NO_EXTRA)
@pytest.mark.full
def test_a_peer_has_the_captions_of_transformers(peers, reference, drawn_images, tiny_checkpoint, name):
    captioner, _ = opener(peers[name])(peers[name], 1)
    model = reference[name]
    for num_beams in (1, 3):
        captions = captioner.caption([image.path for image in drawn_images], num_beams=num_beams)
        for image, caption in zip(drawn_images, captions, strict=True):
            pixels = pixels_of(image, tiny_checkpoint, TYPES.get(name, torch.float32))
            (ids,) = model.generate(pixel_values=pixels, num_beams=num_beams, max_length=20, do_sample=False).tolist()
            end = ids.index(3, 1) + 1 if 3 in ids[1:] else len(ids)
            assert list(caption.token_ids) == ids[:end]


def test_the_recompute_layout_scores_as_transformers_does(peers, drawn_images, tiny_checkpoint):
    """Several captions of one image share no cross K/V in this layout: each row has the image's hidden states."""
    captioner, info = opener(peers["ort-recompute-fp32"])(peers["ort-recompute-fp32"], 1)
    paths, captions = [p.path for p in drawn_images], [p.texts for p in drawn_images]
    expected = HfCaptioner(tiny_checkpoint, 1).score(paths, captions=captions)
    np.testing.assert_allclose(captioner.score(paths, captions=captions), expected, atol=1e-4)
    assert (info.runtime, info.providers) == ("ort", ("CPUExecutionProvider",))


def test_the_recompute_layout_computes_cross_keys_and_values_in_each_step(peers):
    graph = onnx.load(peers["ort-recompute-fp32"] / "decoder.onnx").graph
    names = [value.name for value in graph.input]
    assert names[:2] == ["token_ids", "encoder_hidden_states"]
    assert {name.partition("_")[0] for name in names[2:]} == {"past"}
    products = [node for node in graph.node if node.op_type == "MatMul" and node.input[0] == "encoder_hidden_states"]
    assert len(products) == 2 * 2  # key and value of two layers


def test_bfloat16_has_half_the_bytes(peers, tiny_checkpoint):
    fp32 = (tiny_checkpoint / "model.safetensors").stat().st_size
    assert (peers["hf-bf16"] / "model.safetensors").stat().st_size < 0.6 * fp32
    assert folder_bytes(peers["hf-bf16"]) == sum(file.stat().st_size for file in peers["hf-bf16"].iterdir())


@pytest.mark.full
def test_peers_are_measured_after_artifacts_under_their_own_names(peers, tiny_artifacts, drawn_images):
    folder = peers["hf-int8"].parent
    paths = artifacts_in([folder, tiny_artifacts["onnx-int8"]])
    assert [path.name for path in paths[1:]] == ["hf-bf16", "hf-int8", "ort-recompute-fp32"]
    records = run([tiny_artifacts["onnx-fp32"], peers["ort-recompute-fp32"]], drawn_images[:3])
    artifact, peer = records
    assert [record.error for record in records] == [None, None]
    assert (peer.case, peer.subject.runtime, peer.subject.recipe) == ("ort-recompute-fp32", "ort", None)
    assert peer.subject.artifact_bytes == folder_bytes(peers["ort-recompute-fp32"])
    assert [image.caption for image in peer.quality] == [image.caption for image in artifact.quality]
    assert len(peer.times[0].token_s) == len(artifact.times[0].token_s)


def test_a_peer_of_another_checkpoint_is_an_error(peers, mini_artifacts):
    with pytest.raises(RequestError, match="checkpoint"):
        plan([mini_artifacts["onnx-fp32"], peers["hf-int8"]], None)


def test_a_prepared_peer_is_replaced_only_with_overwrite(peers, sources):
    folder = peers["ort-recompute-fp32"]
    with pytest.raises(OutputExistsError):
        prepare(find_peer(folder.name), sources, folder.parent, overwrite=False)
    assert prepare(find_peer(folder.name), sources, folder.parent, overwrite=True) == folder
    assert read_folder(folder).checkpoint_sha256 == sources.checkpoint.source.sha256
    assert sorted(path.name for path in folder.parent.iterdir()) == sorted(NEEDS_NO_EXTRA)


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"{", "cannot be read"), (b"[" * 100_000, "deep"), (b"{}", "missing"), (b'{"name": "x", "more": 1}', "unknown")],
)
def test_a_damaged_peer_is_an_error(tmp_path, content, problem):
    (tmp_path / PEER_NAME).write_bytes(content)
    with pytest.raises(ArtifactCorruptError, match=problem):
        read_folder(tmp_path)


def test_the_error_of_an_unknown_peer_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"'tvm'.*hf-bf16, hf-int8, openvino-fp32"):
        find_peer("tvm")


def prepare_command(names, sources, checkpoint, output):
    arguments = [*names, "--checkpoint", str(checkpoint), "--graphs", str(sources.graphs.path)]
    return CliRunner().invoke(main, [*arguments, "--calibration", str(sources.calibration[0].parent), "--output", str(output)])


def test_without_openvino_the_other_peers_are_prepared(monkeypatch, sources, tiny_checkpoint, tmp_path):
    monkeypatch.setitem(sys.modules, "openvino", None)  # as if it were not installed, wherever this runs
    monkeypatch.setitem(sys.modules, "nncf", None)
    result = prepare_command(["openvino-int8", "ort-recompute-fp32"], sources, tiny_checkpoint, tmp_path)
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'ort-recompute-fp32'}\n")
    assert result.stderr == "openvino-int8 is skipped: nncf is needed for openvino-int8: pip install 'blip-toolkit[peers]'\n"
    assert [path.name for path in tmp_path.iterdir()] == ["ort-recompute-fp32"]


def test_a_run_without_openvino_measures_the_others(monkeypatch, peers, tiny_artifacts, drawn_images, tmp_path):
    folder = tmp_path / "openvino-fp32"
    folder.mkdir()
    known = (peers["ort-recompute-fp32"] / PEER_NAME).read_text()
    (folder / PEER_NAME).write_text(known.replace('"name":"ort-recompute-fp32"', '"name":"openvino-fp32"'))
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['openvino'] = None\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    records = run([tiny_artifacts["onnx-fp32"], folder], drawn_images[:2])
    assert [record.case for record in records] == ["onnx-fp32", "openvino-fp32"]
    assert [record.error for record in records] == [None, "openvino is needed for openvino-fp32: pip install 'blip-toolkit[peers]'"]


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_the_functions_of_a_row_exist(peer):
    for target in (peer.prepare, peer.open):
        module, _, function = target.partition(":")
        source = (ROOT / module.replace(".", "/")).with_suffix(".py").read_text()
        assert function in {node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}


def test_make_prepares_every_row():
    (names,) = re.findall(r"^PEER_NAMES := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert names.split() == [peer.name for peer in PEERS if not peer.streams]


def test_the_table_joins_speed_and_quality_by_case():
    speed = read_records(ROOT / "tests/golden/published/amd-epyc-vnni/base.jsonl")
    quality = read_records(ROOT / "tests/golden/published/amd-epyc-vnni/quality.jsonl")
    only = [record for record in quality if record.case != "onnx-int8"]
    lines = render_peers(speed, only).splitlines()
    cells = {}  # the table is split because it is too wide
    for name, *others in ([cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")):
        cells.setdefault(name, [name]).extend(others)
    titles = "case|whose graph|s/image|speed-up|peak MB|size MB|drift nat/token|verdict|same captions|BLEU-4, change %|CIDEr-D, change %"
    assert "|".join(cells["case"]) == titles
    assert cells["hf-fp32"][1] == "transformers' modules"
    assert cells["hf-fp32"][6:9] == ["0", "-", "100%"]
    assert (cells["onnx-int8"][1], cells["onnx-int8"][6:]) == ("ours", ["-"] * 5)
    assert cells["onnx-fp32"][7] == "no loss"
    assert cells["onnx-fp32"][8].startswith("100% [")
    assert sum(line.startswith("Host: ") for line in lines) == 2


def test_the_table_lists_unstable_cases():
    speed = [record("steady", repeat, [1.0] * 4) for repeat in range(5)]
    speed += [record("restless", repeat, [1.0 + (repeat == 1)] * 4) for repeat in range(5)]
    lines = render_peers(speed, speed).splitlines()
    assert [line.split("|")[1].strip() for line in lines if line.startswith("| ")][:3] == ["case", "steady", "restless !"]
    assert lines[lines.index("Unstable (!):") + 1] == "- restless: repeats differ by 100%"
