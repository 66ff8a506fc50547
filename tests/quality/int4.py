"""Compare roundings of 4-bit weights: KL divergence and drift of decoders, each with the INT8 encoder of `onnx-int4`.

A method is selected on tuning images and confirmed on others:

    python -m tests.quality.int4 --selection DATA/train/coco_train_mini --confirmation DATA/coco_val_cc_by --output int4.json

HQQ needs zero points that are not integers. ONNX Runtime's fast kernels do not support them, so HQQ's products are computed in FP32 here;
its figures do not contain the rounding of activations. k-quant is llama.cpp's symmetric variant (`make_qx_quants`): with
zero points, one row is wrong on AVX2 (onnxruntime#29853).

The encoder is that of `onnx-int4`, with smoothing. Smoothing changes the weights of encoders only: the decoder's norms feed residual sums
as well as products, so no scale can be folded into them.
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor

from exporters.calibration.activations import Calibration
from exporters.calibration.gram import gram_matrices
from exporters.calibration.smoothing import smoothed
from exporters.checkpoint.checkpoint import Checkpoint, open_checkpoint
from exporters.gate.divergence import kl_divergence
from exporters.gate.drift import drift_of_sums
from exporters.gate.intervals import Float64, interval
from exporters.onnx import blockwise, optimum_int8
from exporters.onnx.build import layers_in_4_bits
from exporters.onnx.fused_attention import fuse_self_attention
from exporters.onnx.graphs import export_graph, weight_products
from exporters.onnx.storage import optimize, store_as_fp16
from exporters.recipe import Component
from exporters.recipes import find_recipe
from exporters.rounding.blocks import Blocks, Float32, Rounding, quantize_blocks, round_to_nearest
from exporters.rounding.gptq import gptq_rounding
from runtimes.decoding.scoring import token_log_probabilities
from runtimes.decoding.tokenizer import CaptionTokenizer
from runtimes.engines.ort.ort_engine import OrtEngine
from runtimes.engines.step_session import StepSession
from runtimes.host.facts import read_host
from runtimes.images.reading import preprocess, read_image
from tests.quality.sections import write_section
from toolkit.datasets import load_dataset

BLOCK_SIZES = (128, 64, 32)
BEFORE, CHOSEN = ("range search", 128), ("GPTQ", 32)
"""Method and block size of `onnx-int4` before the comparison, and those that were selected."""
Codes = tuple[NDArray[np.uint8], Float32]


def nearest(layer: str, weight: Float32, blocks: Blocks, *, is_table: bool) -> Codes:
    """Round to nearest with the scale of the block's largest weight; see `Rounding`."""
    return quantize_blocks(weight, blocks.bits, blocks.size)


def k_quant(layer: str, weight: Float32, blocks: Blocks, *, is_table: bool) -> Codes:
    """Try 19 scales around that of the largest weight; keep the codes and least-squares scale with the least error, weighted by w²."""
    if is_table:
        return quantize_blocks(weight, blocks.bits, blocks.size)
    values = np.ascontiguousarray(weight.T).reshape(weight.shape[1], -1, blocks.size)
    largest = np.take_along_axis(values, np.abs(values).argmax(-1, keepdims=True), -1)
    best, scales = np.full(largest.shape, -1.0), np.zeros(largest.shape)
    for step in (0, *range(-9, 0), *range(1, 10)):
        codes = np.clip(np.rint(values * (-(8 + 0.1 * step) / largest)), -8, 7)
        products, squares = ((values**2 * other * codes).sum(-1, keepdims=True) for other in (values, codes))
        better = products**2 / squares > best
        best, scales = np.where(better, products**2 / squares, best), np.where(better, products / squares, scales)
    stored = scales.astype(np.float16).astype(np.float32)
    return (np.clip(np.rint(values / stored), -8, 7) + 8).astype(np.uint8), stored[..., 0]


def hqq(weight: Float32, block: int) -> Float32:
    """Return the weight f32[K,N] after half-quadratic quantization (Badri and Shaji 2023) with scales and zero points in FP32."""
    values = np.ascontiguousarray(weight.T).reshape(-1, block)
    low, high = values.min(1, keepdims=True), values.max(1, keepdims=True)
    scale, beta, least = 15 / (high - low), 10.0, np.inf
    zero = best = -low * scale
    for _ in range(20):
        codes = np.clip(np.rint(values * scale + zero), 0, 15)
        errors = values - (codes - zero) / scale
        magnitude = np.abs(errors)
        if magnitude.mean() >= least:
            break
        least, best = magnitude.mean(), zero
        shrunk = np.sign(errors) * np.maximum(magnitude - np.maximum(magnitude, 1e-9) ** -0.3 / beta, 0)  # the proximal step of |x|^0.7
        zero, beta = (codes - (values - shrunk) * scale).mean(1, keepdims=True), beta * 1.01
    codes = np.clip(np.rint(values * scale + best), 0, 15)
    result: Float32 = ((codes - best) / scale).astype(np.float32).reshape(weight.shape[1], -1).T
    return result


def decoders(checkpoint: Checkpoint, folder: Path, cases: Sequence[tuple[str, int]]) -> dict[str, Path]:
    """Write the FP32 graphs, the INT8 encoder and one decoder per method and block size.

    Returns:
        "fp32 encoder", "fp32 decoder", "encoder", and method with block size → file.
    """
    recipe, files = find_recipe("onnx-int4"), {}
    for graph in checkpoint.family.graphs(checkpoint.load_model()):
        fuse_self_attention(graph.attention)
        files[f"fp32 {graph.role}"] = folder / f"fp32-{graph.role}.onnx"
        export_graph(graph, files[f"fp32 {graph.role}"])
    files["encoder"] = _copy(files["fp32 encoder"], folder / "encoder.onnx")
    optimum_int8.quantize(files["encoder"], recipe.component("encoder"))
    grams = gram_matrices(checkpoint, layers_in_4_bits(checkpoint, recipe), read_host().cores)
    for method, block in cases:
        files[f"{method} {block}"] = path = _copy(files["fp32 decoder"], folder / f"{method}-{block}.onnx")
        if method == "HQQ":
            _replace_weights(path, partial(hqq, block=block))
        else:
            blockwise.quantize(path, Component(weights="qint4", block_size=block), roundings(grams)[method])
            optimize(path)
            store_as_fp16(path)
    return files


def roundings(grams: Mapping[str, Tensor]) -> dict[str, Rounding]:
    """Return method → rounding."""
    return {
        "round to nearest": nearest,
        "range search": round_to_nearest,
        "k-quant": k_quant,
        "GPTQ": gptq_rounding(grams),
    }


def _copy(source: Path, target: Path) -> Path:
    return Path(shutil.copy(source, target))


def _replace_weights(path: Path, quantized: Callable[[Float32], Float32]) -> None:
    """Replace the weights of products in a graph; the table of word embeddings is rounded to nearest in blocks of 32."""
    model = onnx.load(path)
    lookups = {node.input[0] for node in model.graph.node if node.op_type == "Gather"}
    for name in set(weight_products(model.graph).values()):
        (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == name]
        weight = numpy_helper.to_array(tensor)
        if name in lookups:
            codes, scales = quantize_blocks(weight, 4, 32)
            rounded = ((codes.astype(np.float32) - 8) * scales[..., None]).reshape(weight.shape[1], -1).T
        else:
            rounded = quantized(weight)
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(rounded), name))
    onnx.save(model, path)


def _session(encoder: Path, decoder: Path) -> StepSession:
    threads = read_host().cores
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # each of many sessions has its own threads
    sessions = {role: onnxruntime.InferenceSession(path, options) for role, path in (("encoder", encoder), ("decoder", decoder))}
    return StepSession(OrtEngine(sessions, device="cpu", memory="cpu", threads=threads, precision="int4"), image_per_run=True)


def measure(checkpoint: Checkpoint, files: Mapping[str, Path], dataset: str) -> dict[str, Float64]:
    """Return method with block size → f64[N,3]: sum of KL, drift in nat and number of tokens of each image."""
    tokenizer = CaptionTokenizer(checkpoint.tokenizer_json, checkpoint.tokenizer)
    names = [name for name in files if name.rpartition(" ")[2].isdigit()]
    reference = _session(files["fp32 encoder"], files["fp32 decoder"])
    sessions = {name: _session(files["encoder"], files[name]) for name in names}
    sums: dict[str, list[list[float]]] = {name: [] for name in names}
    for image in load_dataset(dataset).images:
        inputs = {"pixels": preprocess(read_image(image.path), checkpoint.image)[None]}
        ids = [tokenizer.text_ids(caption)[: checkpoint.model.max_positions] for caption in image.texts]
        expected = token_log_probabilities(reference, reference.encode(inputs), ids, checkpoint.tokenizer.pad_id)
        for name, session in sessions.items():
            actual = token_log_probabilities(session, session.encode(inputs), ids, checkpoint.tokenizer.pad_id)
            row = np.zeros(3)
            for given, fp32, int4 in zip(ids, expected, actual, strict=True):
                targets = np.arange(len(given) - 1), np.array(given[1:])
                row += (kl_divergence(fp32, int4).sum(), float((fp32[targets] - int4[targets]).sum()), len(given) - 1)
            sums[name].append(row.tolist())
    return {name: np.array(rows) for name, rows in sums.items()}


def rows_of(sums: Mapping[str, Float64], files: Mapping[str, Path], stage: str) -> list[dict[str, Any]]:
    """Return the rows of the section `int4`."""
    before = sums.get(" ".join(map(str, BEFORE)))
    rows = []
    for name, values in sums.items():
        method, _, block = name.rpartition(" ")
        row: dict[str, Any] = {"case": method, "block": int(block), "smoothed": True, "stage": stage, "images": len(values)}
        for key, column in (("kl", 0), ("drift", 1)):
            low, high = interval(values[:, [column, 2]], drift_of_sums)
            row |= {key: values[:, column].sum() / values[:, 2].sum(), f"{key}_low": low, f"{key}_high": high}
        if before is not None:
            row["kl_factor"] = row["kl"] / (before[:, 0].sum() / before[:, 2].sum())
        row |= {"bytes": None if method == "HQQ" else files[name].stat().st_size, "default": (method, int(block)) == CHOSEN}
        rows.append(row)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every method on the tuning images, and the one before and the chosen one on the others."""
    parser = argparse.ArgumentParser(prog="python -m tests.quality.int4", description="Compare roundings of 4-bit weights.")
    parser.add_argument("--checkpoint", default="models/blip-mini-coco")
    parser.add_argument("--selection", default="sample", help="dataset on which the methods are compared")
    parser.add_argument("--confirmation", help="dataset on which the chosen method is measured once")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    checkpoint = smoothed(open_checkpoint(options.checkpoint), find_recipe("onnx-int4"), Calibration(), read_host().cores)
    cases = [(method, block) for block in BLOCK_SIZES for method in (*roundings({}), "HQQ")]
    with tempfile.TemporaryDirectory() as scratch:
        files = decoders(checkpoint, Path(scratch), cases)
        rows = rows_of(measure(checkpoint, files, options.selection), files, "selection")
        if options.confirmation:
            kept = {name: path for name, path in files.items() if name in {" ".join(map(str, case)) for case in (BEFORE, CHOSEN)}}
            fixed = {name: files[name] for name in ("fp32 encoder", "fp32 decoder", "encoder")}
            rows += rows_of(measure(checkpoint, fixed | kept, options.confirmation), files, "confirmation")
    shown = [row for row in rows if row["stage"] == "confirmation"] or rows
    write_section(
        options.output,
        checkpoint=checkpoint.name,
        dataset=Path(options.confirmation or options.selection).name,
        images=shown[0]["images"],
        command="make quality",
        rows=rows,
        notes=(
            "Methods are compared on tuning images (selection). The method before and the chosen one are then measured once on the scoring "
            "images (confirmation).",
            "HQQ is computed with FP32 activations and zero points.",
            "The word embeddings, which the head shares, are rounded to nearest in every row.",
        ),
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
