"""Check an ONNX graph before onnxruntime loads it: read its inputs, outputs and operators from its bytes, and compare with the manifest.

onnxruntime has crashed on inconsistent graphs (onnxruntime#28731, #4349), and path traversal through external data was possible (#27430).
The reader therefore accepts only what the exporters of this toolkit write. It refuses everything else (functions, sparse tensors, training
information, unknown fields, repeated singular fields), so operators and file names cannot be hidden in other parts of the file. The only
subgraph allowed is the body of one `Loop`; the same rules apply to it, and it has no subgraph. The size of a tensor must be that of its
shape and type. Tensor data is skipped and not read, so that a graph of 100 MB takes milliseconds.

Field numbers are those of onnx.proto. The onnx package is not needed.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import NamedTuple

from runtimes.artifact.manifest import GraphSpec, Manifest
from runtimes.engines.ort.operator_table import LEAST_INPUTS, LOOP, OPERATORS, STANDARD, VERSION
from runtimes.engines.ort.protobuf_wire import Slice, Wire, tags
from runtimes.errors import GraphRefusedError
from runtimes.families.signature import SINGLE, signature_mismatch

ELEMENTS = {
    1: ("float32", 4),
    2: ("uint8", 1),
    3: ("int8", 1),
    6: ("int32", 4),
    7: ("int64", 8),
    9: ("bool", 1),
    10: ("float16", 2),
}
"""TensorProto.DataType → name, and bytes per element."""

MAX_FIELDS = 1_000_000
"""Largest number of fields in a graph. BLIP-large has about 50,000. Reading takes 0.5 s per million."""
MAX_AXES = 8
MAX_AXIS_LENGTH = 1 << 32
"""Largest length of an axis of a stored tensor. Longer axes could overflow the number of elements in onnxruntime."""

MESSAGES = {
    "model": "ir_version:1v producer_name:2 producer_version:3 domain:4 model_version:5v doc_string:6 graph:7 opset:8* metadata:14*",
    "opset": "domain:1 version:2v",
    "graph": "node:1* name:2 initializer:5* doc_string:10 input:11* output:12* value_info:13*",
    "node": "input:1* output:2* name:3 op_type:4 attribute:5* doc_string:6 domain:7",
    "attribute": "name:1 f:2f i:3v s:4 t:5 g:6 floats:7f* floats:7* ints:8v* ints:8* strings:9* doc_string:13 type:20v",
    "tensor": "dims:1v* dims:1* data_type:2v float_data:4 int32_data:5 int64_data:7 name:8 raw_data:9 doc_string:12 external:13* "
    "location:14v",
    "entry": "key:1 value:2",
    "value": "name:1 type:2 doc_string:3",
    "type": "tensor:1 denotation:6",
    "tensor type": "element:1v shape:2",
    "shape": "dim:1*",
    "dim": "value:1v param:2 denotation:3",
}
"""Message → its fields; see `runtimes.engines.ort.protobuf_wire.tags` for the format."""

TAGS = {message: tags(row) for message, row in MESSAGES.items()}


PAYLOADS = {"raw_data", "float_data", "int32_data", "int64_data"}
TYPED = {"float_data": "float32", "int64_data": "int64"}
"""Field of packed values → its only element type. `int32_data` contains the other types."""
NO_FILES: Mapping[str, int] = {}


class ExternalTensor(NamedTuple):
    """A tensor of a graph that is stored in another file (ONNX external data)."""

    name: str
    file: str
    offset: int
    bytes: int


@dataclass
class Contents:
    """The checked contents of a graph."""

    spec: GraphSpec
    """Inputs, outputs, operators and opsets."""
    external: list[ExternalTensor] = field(default_factory=list)


def check_graph(path: Path, data: bytes, role: str, manifest: Manifest, files: Mapping[str, int] = NO_FILES) -> None:
    """Check that a graph is what its manifest and its model family declare.

    Args:
        path: Path of the graph, for error messages.
        data: Bytes of the graph.
        role: "encoder", "decoder", or "captioner" for a single graph.
        manifest: The artifact's manifest.
        files: Name → size in bytes of the files that may contain the graph's external data.

    Raises:
        GraphRefusedError: The graph is damaged, differs from the declarations, or contains an operator that is not in the table.
    """
    declared = manifest.graphs.get(role)
    if declared is None:
        raise GraphRefusedError(path, "the manifest does not declare this graph")
    expected = manifest.model.signatures(manifest.contract, manifest.target.precision).get(role)
    if expected is None:
        raise GraphRefusedError(path, f"family {manifest.family} has no graph {role!r} in the contract {manifest.contract!r}")
    inputs, outputs = expected
    if wrong := signature_mismatch(declared.inputs, inputs) or signature_mismatch(declared.outputs, outputs):
        raise GraphRefusedError(path, f"as {role} of this model it has {wrong}")
    contents = read_graph(path, data)
    loop = {LOOP} if manifest.contract == SINGLE else set()
    for domain, operators in contents.spec.operators.items():
        if unknown := sorted(set(operators) - set(OPERATORS.get(domain, "").split()) - (loop if domain == STANDARD else set())):
            raise GraphRefusedError(path, f"it computes {', '.join(unknown)} of {domain}, which is not in operator table {VERSION}")
    if contents.spec != declared:
        parts = [name for name in ("inputs", "outputs", "operators", "opsets") if getattr(contents.spec, name) != getattr(declared, name)]
        raise GraphRefusedError(path, f"its {' and '.join(parts)} are not those that the manifest declares")
    for tensor in contents.external:
        if tensor.file not in files:
            raise GraphRefusedError(path, f"its tensors are in the file {tensor.file!r}, which the manifest does not declare for it")
        if (end := tensor.offset + tensor.bytes) > files[tensor.file]:
            raise GraphRefusedError(path, f"a tensor ends at byte {end} of {tensor.file}, which has {files[tensor.file]}")


def external_tensors(path: Path, data: bytes) -> list[ExternalTensor]:
    """Return the tensors of a graph that are stored in other files.

    Raises:
        GraphRefusedError: See `read_graph`.
    """
    return read_graph(path, data).external


def read_graph(path: Path, data: bytes) -> Contents:
    """Read a graph's inputs, outputs, operators, opsets and external tensors.

    Args:
        path: Path of the graph, for error messages.
        data: Bytes of the graph.

    Raises:
        GraphRefusedError: The bytes are not an ONNX graph, or contain something that the exporters do not write.
    """
    try:
        return _Reader(data).model()
    except ValueError as error:
        raise GraphRefusedError(path, str(error)) from error


class _Reader:
    """Reads one graph; raises ValueError if it is not acceptable."""

    def __init__(self, data: bytes) -> None:
        self._wire = Wire(data, TAGS, MAX_FIELDS)
        self._fields, self._text = self._wire.fields, self._wire.text
        self._operators: Counter[tuple[str, str]] = Counter()
        self._external: list[ExternalTensor] = []
        self._body = False

    def model(self) -> Contents:
        opsets: dict[str, int] = {}
        graph = None
        for name, value in self._fields("model", (0, len(self._wire.data))):
            if name == "graph":
                graph = value
            elif name == "opset":
                opset = dict(self._fields("opset", value))
                domain = self._text(opset.get("domain")) or STANDARD
                if domain in opsets:
                    raise ValueError(f"it imports {domain} twice")
                opsets[domain] = opset.get("version", 0)
        if graph is None:
            raise ValueError("it contains no graph")
        inputs, outputs = self._graph(graph)
        operators: dict[str, dict[str, int]] = {}
        for (domain, operator), count in sorted(self._operators.items()):
            operators.setdefault(domain, {})[operator] = count
        if operators.get(STANDARD, {}).get(LOOP, 0) != self._body:
            raise ValueError("a Loop has no body")
        return Contents(GraphSpec(inputs=inputs, outputs=outputs, operators=operators, opsets=opsets), self._external)

    def _graph(self, graph: Slice) -> tuple[dict[str, str], dict[str, str]]:
        """Read a graph's nodes and tensors; return its inputs and outputs."""
        inputs: dict[str, str] = {}
        outputs: dict[str, str] = {}
        for name, value in self._fields("graph", graph):
            if name == "node":
                self._node(value)
            elif name == "initializer":
                self._tensor(value, external=True)
            elif name in ("input", "output"):
                key, described = self._value(value)
                side = inputs if name == "input" else outputs
                if key in side:
                    raise ValueError(f"it has two {name}s {key}")
                side[key] = described
        return inputs, outputs

    def _node(self, where: Slice) -> None:
        """Count a node's operator and read its attributes and subgraph."""
        operator = domain = body = None
        inputs: list[bool] = []
        for name, value in self._fields("node", where):
            if name == "input":
                inputs.append(value[1] > value[0])
            elif name == "attribute":
                for part, inner in self._fields("attribute", value):
                    if part == "t":
                        self._tensor(inner, external=False)
                    elif part == "g":
                        if self._body:
                            raise ValueError("it has a second subgraph, or one within another")
                        self._body, body = True, inner
            elif name == "op_type":
                operator = value
            elif name == "domain":
                domain = value
        if operator is None:
            raise ValueError("a node has no operator")
        kind, space = self._text(operator), self._text(domain) or STANDARD
        if not all(inputs[: (least := LEAST_INPUTS.get(kind, 0))]) or len(inputs) < least:
            raise ValueError(f"{kind} has fewer than the {least} inputs that it needs")
        self._operators[space, kind] += 1
        if body is not None:
            if (space, kind) != (STANDARD, LOOP):
                raise ValueError(f"a {kind} has a subgraph")
            self._graph(body)

    def _tensor(self, where: Slice, *, external: bool) -> None:
        """Check that a tensor's size is that of its dims and type; record a tensor of another file if `external` allows it."""
        dims: list[int] = []
        payloads: dict[str, Slice] = {}
        element, is_external, entries, label = 0, False, {}, None
        for name, value in self._fields("tensor", where):
            if name == "dims":
                dims += [value] if isinstance(value, int) else self._wire.varints(value, MAX_AXES)
            elif name == "data_type":
                element = value
            elif name == "name":
                label = value
            elif name in PAYLOADS:
                payloads[name] = value
            elif name == "location":
                is_external = value == 1
            elif name == "external":
                entry = dict(self._fields("entry", value))
                entries[self._text(entry.get("key"))] = self._text(entry.get("value"))
        if element not in ELEMENTS:
            raise ValueError(f"a tensor has elements of kind {element}, which no exporter of this toolkit writes")
        if len(dims) > MAX_AXES or max(dims, default=0) > MAX_AXIS_LENGTH:
            raise ValueError(f"a tensor has the dims {dims[: MAX_AXES + 1]}")
        kind, size = ELEMENTS[element]
        expected = prod(dims)
        if is_external or entries:
            if not external or not is_external or payloads or not set(entries) <= {"location", "offset", "length"}:
                raise ValueError("the external data of a tensor is not written as this toolkit writes it")
            self._external_tensor(self._text(label), entries, expected * size)
            return
        if len(payloads) > 1:
            raise ValueError(f"a tensor has both {' and '.join(sorted(payloads))}")
        for name, (start, stop) in payloads.items():
            if name == "raw_data":
                actual, expected = stop - start, expected * size
            elif name == "float_data":
                actual, expected = stop - start, expected * 4
            else:
                actual = self._wire.count_varints((start, stop))
            if TYPED.get(name, kind) != kind or (name == "int32_data" and kind in TYPED.values()):
                raise ValueError(f"a tensor of {kind} has {name}")
        if (actual if payloads else 0) != expected:
            raise ValueError(f"a tensor of {kind}{dims} contains {actual if payloads else 0} instead of {expected}")

    def _external_tensor(self, name: str, entries: dict[str, str], expected: int) -> None:
        """Record a tensor of another file; its length must be `expected` bytes."""
        numbers = [entries.get("offset", "0"), entries.get("length", "")]
        if "location" not in entries or not all(number.isascii() and number.isdigit() and len(number) < 20 for number in numbers):
            raise ValueError("the external data of a tensor is not written as this toolkit writes it")
        offset, length = map(int, numbers)
        if length != expected:
            raise ValueError(f"a tensor has {length} bytes in {entries['location']} instead of {expected}")
        self._external.append(ExternalTensor(name, entries["location"], offset, length))

    def _value(self, where: Slice) -> tuple[str, str]:
        """Return the name of an input or output, and its type with axes, for example `float32[rows,4,past,8]`."""
        value = dict(self._fields("value", where))
        kinds = dict(self._fields("type", value["type"])) if "type" in value else {}
        tensor = dict(self._fields("tensor type", kinds["tensor"])) if "tensor" in kinds else {}
        if tensor.get("element") not in ELEMENTS or "shape" not in tensor:
            raise ValueError("an input or output is not a tensor of a known type and rank")
        axes = []
        for _, where_dim in self._fields("shape", tensor["shape"]):
            dim = dict(self._fields("dim", where_dim))
            if ("value" in dim) == ("param" in dim):
                raise ValueError("an axis of an input or output has no size and no name, or both")
            axes.append(str(dim["value"]) if "value" in dim else self._text(dim["param"]).replace(",", " "))
        if len(axes) > MAX_AXES:
            raise ValueError(f"an input or output has {len(axes)} axes")
        return self._text(value.get("name")), f"{ELEMENTS[tensor['element']][0]}[{','.join(axes)}]"
