"""`rank_candidates` as a table: artifacts of a folder and facts of a machine → order, devices and reasons.

The manifests are those of the shipped recipes.
"""

from dataclasses import replace

import pytest

from exporters.recipes import RECIPES, find_recipe
from runtimes.artifact import json_dataclass
from runtimes.artifact.generation import GenerationConfig
from runtimes.artifact.manifest import SCHEMA, ImageSpec, Manifest, Source, TokenizerSpec
from runtimes.families.blip import BlipSpec
from runtimes.host.facts import Host
from runtimes.selection.ranking import Choice, rank_candidates

X86 = frozenset({"avx2"})
VNNI = frozenset({"avx2", "avx512", "vnni"})
ARM = frozenset({"dotprod", "i8mm"})
OLD_ARM = frozenset[str]()
ORT, TORCH = frozenset({"ort"}), frozenset({"torch"})
BOTH = ORT | TORCH

MODEL = BlipSpec(
    image_px=32,
    patch_px=16,
    vision_width=32,
    vision_inner=64,
    vision_layers=2,
    vision_heads=4,
    vision_activation="gelu",
    vision_norm_eps=1e-05,
    text_width=32,
    text_inner=64,
    text_layers=2,
    text_heads=4,
    text_activation="gelu",
    text_norm_eps=1e-12,
    vocabulary=64,
    max_positions=32,
)


def manifest(recipe):
    return Manifest(
        schema=SCHEMA,
        name=f"m-{recipe.name}",
        task="caption",
        family="blip",
        runtime=recipe.runtime,
        contract=recipe.contract,
        toolkit="0",
        source=Source(model="m", revision=None, sha256="0"),
        recipe=json_dataclass.dump(recipe),
        applied={},
        target=recipe.target,
        model=MODEL,
        image=ImageSpec(height_px=32, width_px=32, resample="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), rescale=1 / 255),
        tokenizer=TokenizerSpec(bos_id=1, eos_id=2, pad_id=0),
        defaults=GenerationConfig(),
        graphs={},
        files={},
        requires={},
        gate={},
    )


MANIFESTS = {recipe.name: manifest(recipe) for recipe in RECIPES if not recipe.approximate}
FAST = manifest(find_recipe("onnx-int8-fast"))
ALL = tuple(MANIFESTS)


def host(features=VNNI, libraries=BOTH, cuda=False):
    return Host(cpu="c", machine="m", cpu_features=features, cores=2, libraries=libraries, cuda=cuda)


GPU_FIRST = ["onnx-fp16@cuda", "pytorch-fp16@cuda"]
AFTER_INT8 = ["onnx-int4", "onnx-fp32", "pytorch-fp32"]
CPU_PLAIN = ["onnx-int8", "onnx-int8-single", "pytorch-int8", *AFTER_INT8]
CPU_FULL = ["onnx-int8-full", *CPU_PLAIN]
HALF = ["onnx-fp16", "pytorch-fp16"]


@pytest.mark.parametrize(
    ("names", "machine", "device", "order"),
    [
        # A server or a new laptop; one without VNNI; a Pi 5 or a phone; a Pi 4.
        (ALL, host(VNNI), "auto", CPU_FULL + HALF),
        (ALL, host(X86), "auto", CPU_PLAIN + HALF),
        (ALL, host(ARM), "auto", CPU_FULL + HALF),
        (ALL, host(OLD_ARM), "auto", CPU_PLAIN + HALF),
        (ALL, host(VNNI), "cpu", CPU_FULL + HALF),
        # A GPU comes first unless device is "cpu". With "cuda", only artifacts for the GPU remain.
        (ALL, host(VNNI, cuda=True), "auto", GPU_FIRST + CPU_FULL),
        (ALL, host(X86, cuda=True), "auto", GPU_FIRST + CPU_PLAIN),
        (ALL, host(VNNI, cuda=True), "cpu", CPU_FULL + HALF),
        (ALL, host(VNNI, cuda=True), "cuda", [*GPU_FIRST, "onnx-fp32@cuda", "pytorch-fp32@cuda"]),
        (ALL, host(VNNI), "cuda", []),
        # One library only, or none.
        (ALL, host(X86, ORT), "auto", ["onnx-int8", "onnx-int8-single", "onnx-int4", "onnx-fp32", "onnx-fp16"]),
        (ALL, host(X86, TORCH), "auto", ["pytorch-int8", "pytorch-fp32", "pytorch-fp16"]),
        (ALL, host(VNNI, TORCH, cuda=True), "auto", ["pytorch-fp16@cuda", "pytorch-int8", "pytorch-fp32"]),
        (ALL, host(VNNI, frozenset()), "auto", []),
        (ALL, host(VNNI, frozenset(), cuda=True), "cuda", []),
        # Folders with fewer artifacts.
        (("onnx-fp16",), host(X86), "auto", ["onnx-fp16"]),
        (("onnx-fp16",), host(X86), "cuda", []),
        (("onnx-fp16", "pytorch-fp16"), host(X86, TORCH), "cpu", ["pytorch-fp16"]),
        (("onnx-fp16", "onnx-fp32"), host(X86), "auto", ["onnx-fp32", "onnx-fp16"]),
        (("onnx-fp32", "pytorch-fp32"), host(VNNI, cuda=True), "auto", ["onnx-fp32", "pytorch-fp32"]),
        (("onnx-fp32", "pytorch-int8"), host(X86), "auto", ["pytorch-int8", "onnx-fp32"]),
        (("onnx-fp32", "onnx-fp16", "onnx-int4"), host(X86), "auto", ["onnx-int4", "onnx-fp32", "onnx-fp16"]),
        (("onnx-int4", "onnx-int8-full", "pytorch-int8"), host(X86, ORT), "auto", ["onnx-int4"]),
        (("onnx-int4", "onnx-fp16"), host(VNNI, cuda=True), "auto", ["onnx-fp16@cuda", "onnx-int4"]),
        (("onnx-int4", "onnx-fp32"), host(VNNI, cuda=True), "cuda", ["onnx-fp32@cuda"]),
        (("onnx-int8-full",), host(X86), "auto", []),
        (("onnx-int8-full",), host(OLD_ARM), "auto", []),
        (("onnx-int8-full", "onnx-fp32"), host(X86), "auto", ["onnx-fp32"]),
        (("onnx-int8", "onnx-int8-full"), host(frozenset({"dotprod"})), "auto", ["onnx-int8-full", "onnx-int8"]),
        (("onnx-int8-full", "pytorch-int8"), host(VNNI), "auto", ["onnx-int8-full", "pytorch-int8"]),
        ((), host(VNNI), "auto", []),
    ],
)  # fmt: skip
def test_order(names, machine, device, order):
    ranked = rank_candidates({name: MANIFESTS[name] for name in names}, machine, device)
    assert [f"{choice.name}@cuda" if choice.device == "cuda" else choice.name for choice in ranked] == order
    assert {choice.device for choice in ranked} <= {"cpu", "cuda"}
    backwards = rank_candidates({name: MANIFESTS[name] for name in reversed(names)}, machine, device)
    assert backwards == ranked  # regardless of the order of the folder


def test_reasons():
    assert rank_candidates(MANIFESTS, host(VNNI, ORT, cuda=True)) == [
        Choice(name="onnx-fp16", device="cuda", why="FP16 on the GPU"),
        Choice(name="onnx-int8-full", device="cpu", why="INT8 tuned for this CPU (vnni)"),
        Choice(name="onnx-int8", device="cpu", why="INT8 that is correct on every CPU"),
        Choice(name="onnx-int8-single", device="cpu", why="INT8 that is correct on every CPU"),
        Choice(name="onnx-int4", device="cpu", why="INT4, as there is no INT8 artifact that this machine can run"),
        Choice(name="onnx-fp32", device="cpu", why="FP32, as there is no INT8 or INT4 artifact that this machine can run"),
    ]
    assert rank_candidates({"x": MANIFESTS["onnx-fp16"]}, host()) == [
        Choice(name="x", device="cpu", why="FP16 on the CPU, as there is nothing else")
    ]


def test_the_reason_names_the_feature_that_this_cpu_has():
    (choice,) = rank_candidates({"x": MANIFESTS["onnx-int8-full"]}, host(ARM, ORT))
    assert choice.why == "INT8 tuned for this CPU (dotprod)"


def test_equals_are_ordered_by_name():
    twins = dict.fromkeys(("b", "a", "c"), MANIFESTS["onnx-int8"])
    assert [choice.name for choice in rank_candidates(twins, host())] == ["a", "b", "c"]


@pytest.mark.parametrize("beside", [(name,) for name in ALL] + [ALL])
@pytest.mark.parametrize("machine", [host(VNNI), host(ARM), host(OLD_ARM, ORT), host(X86, cuda=True)])
@pytest.mark.parametrize("device", ["auto", "cpu", "cuda"])
def test_an_approximate_artifact_comes_last(beside, machine, device):
    others = {name: MANIFESTS[name] for name in beside}
    last = [] if device == "cuda" else ["a-fast-one"]
    assert [choice.name for choice in rank_candidates({"a-fast-one": FAST, **others}, machine, device)] == [
        *(choice.name for choice in rank_candidates(others, machine, device)),
        *last,
    ]


def test_the_reason_for_an_approximate_artifact():
    why = "approximate (INT8), as there is nothing else that this machine can run"
    assert rank_candidates({"x": FAST}, host(X86, ORT)) == [Choice(name="x", device="cpu", why=why)]
    # Tuning for this CPU does not raise its rank.
    tuned = replace(FAST, target=replace(FAST.target, cpu_features=("vnni",)))
    assert [choice.name for choice in rank_candidates({"x": tuned, "y": MANIFESTS["onnx-fp16"]}, host())] == ["y", "x"]
