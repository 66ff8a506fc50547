"""The table of peers: the graph that runs, the method, and the functions that prepare and open it.

A peer is prepared once as a folder (`toolkit.bench.peers.folder`). `toolkit bench` measures this folder like an artifact.
"""

from dataclasses import dataclass
from typing import Literal

from runtimes.errors import UnknownNameError


@dataclass(frozen=True, kw_only=True)
class Peer:
    """Another tool, or another configuration, that runs the checkpoint."""

    name: str
    runtime: Literal["transformers", "ort", "openvino"]
    graph: str
    """The origin of the graph or module that runs."""
    method: str
    """How the graph is quantized and run."""
    prepare: str
    """"module:function", called with (Sources, folder); it writes the peer's files."""
    open: str
    """"module:function", called with (folder, threads); it returns a captioner and its EngineInfo."""
    streams: bool = False
    """Whether several threads caption at once with it; such a peer is only for throughput."""


TRANSFORMERS = "transformers' modules"
TOOLKIT_GRAPHS = "our onnx-fp32"
RECOMPUTE = "transformers' modules, split; cross K/V recomputed"

PEERS = (
    Peer(
        name="hf-int8",
        runtime="transformers",
        graph=TRANSFORMERS,
        method="torch.ao quantize_dynamic of every Linear, one scale per tensor, from its saved state",
        prepare="toolkit.bench.peers.hf_variants:prepare_int8",
        open="toolkit.bench.peers.hf_variants:open_int8",
    ),
    Peer(
        name="hf-bf16",
        runtime="transformers",
        graph=TRANSFORMERS,
        method="bfloat16 weights and activations",
        prepare="toolkit.bench.peers.hf_variants:prepare_bf16",
        open="toolkit.bench.peers.hf_variants:open_bf16",
    ),
    Peer(
        name="ort-recompute-fp32",
        runtime="ort",
        graph=RECOMPUTE,
        method="FP32 on ONNX Runtime",
        prepare="toolkit.bench.peers.recompute_graphs:prepare_onnx",
        open="toolkit.bench.peers.ort_engine:open_peer",
    ),
    Peer(
        name="openvino-fp32",
        runtime="openvino",
        graph=TOOLKIT_GRAPHS,
        method="FP32 on OpenVINO",
        prepare="toolkit.bench.peers.openvino_graphs:prepare_fp32",
        open="toolkit.bench.peers.openvino_engine:open_fp32",
    ),
    Peer(
        name="openvino-int8",
        runtime="openvino",
        graph=TOOLKIT_GRAPHS,
        method="NNCF: INT8 encoder calibrated on images, INT8 weights in the decoder; float type chosen by OpenVINO",
        prepare="toolkit.bench.peers.openvino_graphs:prepare_int8",
        open="toolkit.bench.peers.openvino_engine:open_int8",
    ),
    Peer(
        name="openvino-int8-streams",
        runtime="openvino",
        graph=TOOLKIT_GRAPHS,
        method="openvino-int8 with OpenVINO's throughput hint, one infer request per captioning thread",
        prepare="toolkit.bench.peers.openvino_graphs:prepare_int8",
        open="toolkit.bench.peers.openvino_engine:open_int8_streams",
        streams=True,
    ),
    Peer(
        name="openvino-recompute-int8",
        runtime="openvino",
        graph=RECOMPUTE,
        method="NNCF: INT8 encoder calibrated on images, INT8 weights in the decoder; float type chosen by OpenVINO",
        prepare="toolkit.bench.peers.openvino_graphs:prepare_recompute_int8",
        open="toolkit.bench.peers.openvino_engine:open_int8",
    ),
)


def find_peer(name: str) -> Peer:
    """Return a peer by name.

    Raises:
        UnknownNameError: No peer has this name.
    """
    by_name = {peer.name: peer for peer in PEERS}
    if name not in by_name:
        raise UnknownNameError("peer", name, by_name)
    return by_name[name]
