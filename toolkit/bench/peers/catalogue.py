"""The peers as data: each row names whose graph runs, how, and which functions prepare and open it.

A peer is prepared once into a folder (`toolkit.bench.peers.folder`) and measured from there by `toolkit bench`, as an artifact is.
"""

from dataclasses import dataclass
from typing import Literal

from runtimes.errors import UnknownNameError


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One way to run a checkpoint that is not ours."""

    name: str
    runtime: Literal["transformers", "ort", "openvino"]
    graph: str
    """Whose graph or module runs."""
    method: str
    """What is done to it."""
    prepare: str
    """"module:function", called with (Sources, folder): writes what the peer needs."""
    open: str
    """"module:function", called with (folder, threads): returns a captioner and its EngineInfo."""


TRANSFORMERS = "transformers' modules"
OURS = "our onnx-fp32"
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
        graph=OURS,
        method="FP32 on OpenVINO",
        prepare="toolkit.bench.peers.openvino_graphs:prepare_fp32",
        open="toolkit.bench.peers.openvino_engine:open_fp32",
    ),
    Peer(
        name="openvino-int8",
        runtime="openvino",
        graph=OURS,
        method="NNCF: INT8 encoder calibrated on images, INT8 weights in the decoder; OpenVINO's own choice of float type",
        prepare="toolkit.bench.peers.openvino_graphs:prepare_int8",
        open="toolkit.bench.peers.openvino_engine:open_int8",
    ),
    Peer(
        name="openvino-recompute-int8",
        runtime="openvino",
        graph=RECOMPUTE,
        method="NNCF: INT8 encoder calibrated on images, INT8 weights in the decoder; OpenVINO's own choice of float type",
        prepare="toolkit.bench.peers.openvino_graphs:prepare_recompute_int8",
        open="toolkit.bench.peers.openvino_engine:open_int8",
    ),
)


def find_peer(name: str) -> Peer:
    """Return a peer by name.

    Raises:
        UnknownNameError: There is none.
    """
    by_name = {peer.name: peer for peer in PEERS}
    if name not in by_name:
        raise UnknownNameError("peer", name, by_name)
    return by_name[name]
