"""Convert ONNX graphs to OpenVINO: `encoder.xml` and `decoder.xml` with weights.

INT8 follows OpenVINO's BLIP example. NNCF calibrates the activations of the encoder on images. The decoder loses more quality, so it has
INT8 weights and float activations.
"""

import logging
import tempfile
from pathlib import Path
from typing import Any

import nncf
import openvino

from runtimes.images.reading import preprocess, read_image
from toolkit.bench.peers.folder import Sources
from toolkit.bench.peers.recompute_graphs import export_recompute_graphs


def prepare_fp32(sources: Sources, folder: Path) -> None:
    """Write the artifact's graphs in FP32."""
    for role in ("encoder", "decoder"):
        _save(openvino.convert_model(sources.graphs.path_of(role)), folder, role)


def prepare_int8(sources: Sources, folder: Path) -> None:
    """Write the artifact's graphs in NNCF's INT8."""
    _write_int8({role: sources.graphs.path_of(role) for role in ("encoder", "decoder")}, sources, folder)


def prepare_recompute_int8(sources: Sources, folder: Path) -> None:
    """Write the graphs of the recompute layout in NNCF's INT8."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        _write_int8(export_recompute_graphs(sources, Path(scratch)), sources, folder)


def _write_int8(graphs: dict[str, Path], sources: Sources, folder: Path) -> None:
    nncf.set_log_level(logging.ERROR)
    spec = sources.graphs.manifest.image
    images = nncf.Dataset(list(sources.calibration), lambda path: {"pixels": preprocess(read_image(path), spec)[None]})
    encoder = nncf.quantize(
        openvino.convert_model(graphs["encoder"]),
        images,
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(sources.calibration),
    )
    _save(encoder, folder, "encoder")
    del encoder
    _save(nncf.compress_weights(openvino.convert_model(graphs["decoder"])), folder, "decoder")


def _save(graph: Any, folder: Path, role: str) -> None:  # noqa: ANN401 - openvino is untyped
    openvino.save_model(graph, folder / f"{role}.xml", compress_to_fp16=False)
