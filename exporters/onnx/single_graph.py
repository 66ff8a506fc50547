"""Join encoder and decoder of a `split/1` artifact into one graph of contract `single/1`, which computes token ids from pixels.

The encoder runs once. Then ONNX's `Loop` operator runs the decoder until every caption has ended or has the maximum length. The search is
greedy; beam search is not supported. A caption that has ended is padded until all have ended. The other nodes are written in
ONNX's text format.

Axes: B images, V vocabulary, L token ids so far, T new token ids.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper, parser

from exporters.onnx.storage import externalize_weights
from runtimes.artifact.folder import Artifact
from runtimes.artifact.manifest import Manifest

ROLE = "captioner"

START = """
images = Shape <start = 0, end = 1> (pixels)
column = Concat <axis = 0> (images, one)
first_ids = Expand (prompt_ids, column)
none_ended = Expand (no, column)
no_sums = Expand (zero, column)
cache = Concat <axis = 0> (images, cache_of_one)
no_past = Expand (empty, cache)
prompt_length = Size (prompt_ids)
most_tokens = Sub (max_length, prompt_length)
"""
"""Nodes for the initial state of the loop. Values per image have the shape [B,1]."""

BEFORE_DECODER = """
new = Shape <start = 1> (new_ids)
positions = Sub (new, one)
"""
"""The decoder computes logits at the last new token only."""

AFTER_DECODER = """
last = Squeeze (logits, one)
length = Shape <start = 1> (ids)
too_short = Less (length, min_length)
barred = And (too_short, is_end)
allowed = Where (barred, never, last)
best = ArgMax <axis = 1> (allowed)
log_probabilities_of_all = LogSoftmax <axis = 1> (last)
log_probability = GatherElements <axis = 1> (log_probabilities_of_all, best)
gain = Where (ended, zero, log_probability)
sums_out = Add (sums, gain)
next_id = Where (ended, pad, best)
ends = Equal (next_id, end)
ended_out = Or (ended, ends)
ids_out = Concat <axis = 1> (ids, next_id)
ended_number = Cast <to = 6> (ended_out)
all_ended_number = ReduceMin <keepdims = 0> (ended_number)
all_ended = Cast <to = 9> (all_ended_number)
goes_on = Not (all_ended)
"""
"""Greedy search as in `runtimes.decoding.search`. The end token is not allowed while a caption is too short; scores ignore this rule."""

END = """
log_probabilities = Squeeze (final_sums, one)
"""


def join(split: Artifact, directory: Path) -> dict[str, Path]:
    """Join the two graphs of an artifact.

    Args:
        split: An artifact of contract `split/1`.
        directory: Folder for the files.

    Returns:
        Role → file: the graph and its weights.
    """
    encoder = _load(split, "encoder")
    decoder = _load(split, "decoder")
    for node in decoder.graph.node:  # `token_ids` is the name of the joined graph's output
        node.input[:] = ["new_ids" if name == "token_ids" else name for name in node.input]
    past = [value for value in decoder.graph.input if value.name.startswith("past_")]
    present = [value for value in decoder.graph.output if value.name != "logits"]
    body = helper.make_graph(
        [*_nodes(BEFORE_DECODER), *decoder.graph.node, *_nodes(AFTER_DECODER)],
        "step",
        [
            _value("turn", TensorProto.INT64),
            _value("going", TensorProto.BOOL),
            _value("new_ids", TensorProto.INT64, "rows", "new"),
            _value("ids", TensorProto.INT64, "rows", "length"),
            _value("ended", TensorProto.BOOL, "rows", 1),
            _value("sums", TensorProto.FLOAT, "rows", 1),
            *past,
        ],
        [
            _value("goes_on", TensorProto.BOOL),
            _value("next_id", TensorProto.INT64, "rows", 1),
            _value("ids_out", TensorProto.INT64, "rows", "longer"),
            _value("ended_out", TensorProto.BOOL, "rows", 1),
            _value("sums_out", TensorProto.FLOAT, "rows", 1),
            *present,
        ],
    )
    loop = helper.make_node(
        "Loop",
        ["most_tokens", "yes", "first_ids", "first_ids", "none_ended", "no_sums", *["no_past"] * len(past)],
        ["last_id", "token_ids", "all_ended_at_last", "final_sums", *(f"final_{value.name}" for value in present)],
        name="/loop",
        body=body,
    )
    graph = helper.make_graph(
        [*encoder.graph.node, *_nodes(START), loop, *_nodes(END)],
        ROLE,
        [
            *encoder.graph.input,
            _value("prompt_ids", TensorProto.INT64, "prompt"),
            _value("min_length", TensorProto.INT64),
            _value("max_length", TensorProto.INT64),
        ],
        [_value("token_ids", TensorProto.INT64, "images", "length"), _value("log_probabilities", TensorProto.FLOAT, "images")],
        [*encoder.graph.initializer, *decoder.graph.initializer, *_constants(split.manifest, past[0])],
    )
    opsets = {opset.domain: opset.version for model in (encoder, decoder) for opset in model.opset_import}
    model = helper.make_model(graph, ir_version=max(encoder.ir_version, decoder.ir_version))
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in opsets.items())
    path = directory / f"{ROLE}.onnx"
    weights = directory / f"{ROLE}-weights.bin"
    externalize_weights(model.graph, weights)
    onnx.save(model, path)
    return {path.stem: path, weights.stem: weights}


def _load(split: Artifact, role: str) -> onnx.ModelProto:
    """Load a graph and prefix its inner names with its role, so that two graphs can be joined. Names of inputs and outputs stay."""
    return compose.add_prefix(onnx.load(split.path_of(role)), f"{role}/", rename_inputs=False, rename_outputs=False)


def _nodes(text: str) -> list[onnx.NodeProto]:
    """Parse nodes in ONNX's text format. Each is named after its first output."""
    nodes = list(parser.parse_graph(f"lines () => () {{ {text} }}").node)
    for node in nodes:
        node.name = f"/loop/{node.output[0]}"
    return nodes


def _value(name: str, kind: int, *axes: str | int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, axes)


def _constants(manifest: Manifest, past: onnx.ValueInfoProto) -> list[onnx.TensorProto]:
    """Return the constants of `START`, `BEFORE_DECODER`, `AFTER_DECODER` and `END`; `past` is a cache input [B,H,P,Dh] of the decoder."""
    ids, (_, heads, _, head_width) = manifest.tokenizer, past.type.tensor_type.shape.dim
    values = {
        "one": np.array([1]),
        "yes": np.array(True),
        "no": np.array([False]),
        "zero": np.array([0], np.float32),
        "never": np.array(-np.inf, np.float32),
        "end": np.array(ids.eos_id),
        "pad": np.array(ids.pad_id),
        "is_end": np.arange(manifest.model.vocabulary) == ids.eos_id,
        "cache_of_one": np.array([heads.dim_value, 0, head_width.dim_value]),
        "empty": np.zeros(1, helper.tensor_dtype_to_np_dtype(past.type.tensor_type.elem_type)),
    }
    return [numpy_helper.from_array(value, name) for name, value in values.items()]
