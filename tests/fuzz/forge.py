"""Forged artifacts with correct hashes: fields, shapes, types, operators and tensors are changed, and hashed again to reach the parsers.

Each is loaded and captions in its own process. It must end with a named error or a caption, write nothing, start nothing, and stay within
time and memory. A crash of onnxruntime itself ends only that process: it is counted and listed, not forbidden.
"""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

from runtimes.artifact import json_dataclass
from runtimes.artifact.folder import open_artifact
from runtimes.artifact.manifest import MANIFEST_NAME, Manifest
from runtimes.engines.ort.graph_check import ELEMENTS, read_graph
from runtimes.engines.ort.operator_table import OPERATORS
from runtimes.errors import ToolkitError
from tests.fuzz.mutate import damaged
from tests.fuzz.parsers import sha256
from tests.fuzz.tally import Tally

MAX_SECONDS, MAX_GROWN_KB = 10, 512_000
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 3, 7, 64, 1 << 16, 1 << 31, 1 << 62, 1 << 70, 0.5, -0.0, 1e-30, 1e300, "", "x", "../x", "cpu", [], ["a"], {},
)  # fmt: skip
NUMBERS = (0, 1, -1, 2, 3, 8, 16, 64, 255, 1 << 16, 1 << 31, (1 << 31) - 1, 1 << 40, -(1 << 63), (1 << 63) - 1)
WORDS = [name for names in OPERATORS.values() for name in names.split()]
WORDS += ["Loop", "If", "Scan", "PyOp", "StringNormalizer", "Resize", "DequantizeLinear"]
INTEGERS = (onnx.AttributeProto.INT, onnx.AttributeProto.INTS)
PROMISE = "no write, no code, under 10 s and 512 MB; a named error, a caption, or a crash in the child only"


def run(
    seeds: Sequence[Path], count: int, seed: int, folder: Path, image: Path, *, role: str = "", name: str = "forged artifacts"
) -> tuple[Tally, list[str]]:
    """Load forged artifacts; return the counts and the list of crashes.

    Args:
        seeds: Artifacts, or unpacked packages, whose golden captions are replayed too.
        count: How many to try.
        seed: Of chance.
        folder: Where to write them.
        image: What they caption.
        role: Files with roles that start so are forged; all, and the manifest, if it is empty.
        name: Of the tally.
    """
    tally = Tally(f"{name}, hashes made right", PROMISE)
    chance, crashes = random.Random(seed), []
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.fuzz.child", str(image)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    with child:
        for number in range(count):
            source, path = seeds[number % len(seeds)], folder / "forged"
            how = forged(source, path, chance, role)
            child.stdin.write(json.dumps(str(path)) + "\n")
            child.stdin.flush()
            row = json.loads(child.stdout.readline())
            case = f"forgery {number}, seed {seed}: {source.name}, {how}"
            tally.note(row["outcome"], broken(row, case))
            if row["outcome"].startswith("SIG"):
                crashes.append(f"{case}: {row['outcome']}")
            if [file.name for file in folder.iterdir()] != ["forged"]:
                tally.broken.append(f"{case}: wrote beside itself")
            shutil.rmtree(path)
        child.stdin.close()
    return tally, crashes


def broken(row: dict[str, Any], case: str) -> str | None:
    """Return which promise a case broke; None if it broke none."""
    if row["forbidden"]:
        return f"{case}: {row['forbidden']}"
    if row["outcome"].startswith(("exception", "exit", "SIGALRM", "SIGXCPU", "SIGKILL")):
        return f"{case}: {row['outcome']} {row['message']}"
    if row["seconds"] > MAX_SECONDS or row["grown_kb"] > MAX_GROWN_KB:
        return f"{case}: {row['seconds']:.1f} s, {row['grown_kb']} kB"
    return None


def forged(source: Path, path: Path, chance: random.Random, role: str = "") -> str:
    """Write a forged copy of an artifact and return what was changed."""
    manifest = open_artifact(source).manifest
    content = {name: (source / name).read_bytes() for name in manifest.files}
    files = [name for name, entry in manifest.files.items() if entry.role.startswith(role)]
    name = chance.choice(files if role else [MANIFEST_NAME, *files])
    how = f"{name.partition('-')[0]}: "
    parsed = None
    if name == MANIFEST_NAME:
        parsed = json_dataclass.dump(manifest)
        how += edit(parsed, chance, keep=("files", "schema"))
    elif name.endswith(".onnx") and chance.random() < 0.75:
        model = onnx.load_from_string(content[name])
        how += " and ".join(chance.choice(GRAPH_EDITS)(model, chance) for _ in range(chance.choice((1, 1, 2))))
        content[name] = model.SerializeToString()
    elif name.endswith(".json") and chance.random() < 0.75:
        document = json.loads(content[name])
        how += edit(document, chance)
        content[name] = json.dumps(document).encode()
    elif name.endswith(".npy") and chance.random() < 0.75:
        how += edit_rows(content, name, chance)
    elif name.endswith(".safetensors") and chance.random() < 0.75:
        how += edit_header(content, name, chance)
    else:
        kind, content[name] = damaged(content[name], chance)
        how += kind
    write(path, manifest, content, parsed)
    return how


def write(path: Path, manifest: Manifest, content: dict[str, bytes], parsed: Any = None) -> None:
    """Write an artifact whose hashes, sizes and declared graphs are those of its content."""
    files = {name: replace(entry, bytes=len(content[name]), sha256=sha256(content[name])) for name, entry in manifest.files.items()}
    graphs = dict(manifest.graphs)
    for name, entry in files.items():
        if entry.role in graphs:
            try:
                graphs[entry.role] = read_graph(path, content[name]).spec
            except ToolkitError:
                continue  # an unreadable graph keeps its declaration
    path.mkdir()
    for name, data in content.items():
        (path / name).write_bytes(data)
    parsed = parsed or json_dataclass.dump(replace(manifest, graphs=graphs))
    parsed["files"] = {name: json_dataclass.dump(entry) for name, entry in files.items()}
    (path / MANIFEST_NAME).write_text(json.dumps(parsed))


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Return every (container, key) of JSON values."""
    for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(item, dict | list):
            yield from places(item)


def edit(parsed: Any, chance: random.Random, keep: tuple[str, ...] = ()) -> str:
    """Change one to three values of a JSON document; numbers become other numbers more often than not."""
    done = []
    for _ in range(chance.choice((1, 1, 2, 3))):
        holder, key = chance.choice([(holder, key) for holder, key in places(parsed) if key not in keep or holder is not parsed])
        old = holder[key]
        if chance.random() < 0.1:
            holder.pop(key)
            done.append(f"no {key}")
            continue
        alike = [value for value in VALUES if type(value) is type(old)]
        holder[key] = chance.choice(alike if alike and chance.random() < 0.6 else VALUES)
        done.append(f"{key}={holder[key]!r}"[:60])
    return ", ".join(done)


def edit_rows(content: dict[str, bytes], name: str, chance: random.Random) -> str:
    """Change one to three numbers of a draft table, behind its header."""
    data, header = bytearray(content[name]), 128
    done = []
    for _ in range(chance.choice((1, 1, 2, 3))):
        index, number = chance.randrange((len(data) - header) // 4), chance.choice(NUMBERS) & 0xFFFFFFFF
        data[header + 4 * index : header + 4 * index + 4] = number.to_bytes(4, "little")
        done.append(f"number {index} is {number}")
    content[name] = bytes(data)
    return ", ".join(done)


def edit_header(content: dict[str, bytes], name: str, chance: random.Random) -> str:
    """Change the header of a safetensors file."""
    data = content[name]
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    if chance.random() < 0.3:
        first, second = chance.sample([key for key in header if key != "__metadata__"], 2)
        header[first], header[second] = header[second], header[first]
        how = f"{first} and {second} changed places"
    elif chance.random() < 0.3:
        entry = header[chance.choice([key for key in header if key != "__metadata__"])]
        entry["dtype"], entry["shape"] = chance.choice(("I8", "F16", "F32", "BOOL")), [*entry["shape"], chance.choice(NUMBERS)]
        how = f"{entry['dtype']} {entry['shape']}"
    else:
        how = edit(header, chance)
    text = json.dumps(header).encode()
    content[name] = len(text).to_bytes(8, "little") + text + data[8 + length :]
    return how


def other_operator(model: onnx.ModelProto, chance: random.Random) -> str:
    node = chance.choice(model.graph.node)
    was, node.op_type = node.op_type, chance.choice(WORDS)
    return f"{was} is {node.op_type}"


def other_domain(model: onnx.ModelProto, chance: random.Random) -> str:
    node = chance.choice(model.graph.node)
    node.domain = chance.choice(("", "com.microsoft", "ai.onnx.ml", "com.microsoft.nchwc"))
    return f"{node.op_type} of {node.domain!r}"


def other_input(model: onnx.ModelProto, chance: random.Random) -> str:
    """Change an input of a node to another tensor, to its own output, or to none."""
    node = chance.choice([node for node in model.graph.node if node.input])
    place = chance.randrange(len(node.input))
    names = [name for other in model.graph.node for name in (*other.input, *other.output)]
    node.input[place] = chance.choice((chance.choice(names), chance.choice(names), "", node.output[0]))
    return f"{node.op_type} reads {node.input[place]!r}"


def fewer_inputs(model: onnx.ModelProto, chance: random.Random) -> str:
    node = chance.choice([node for node in model.graph.node if node.input])
    node.input.pop()
    return f"{node.op_type} has {len(node.input)} inputs"


def more_inputs(model: onnx.ModelProto, chance: random.Random) -> str:
    node = chance.choice(model.graph.node)
    node.input.extend(chance.choice([tensor.name for tensor in model.graph.initializer]) for _ in range(chance.choice((1, 2, 9))))
    return f"{node.op_type} has {len(node.input)} inputs"


def other_attribute(model: onnx.ModelProto, chance: random.Random) -> str:
    node = chance.choice([node for node in model.graph.node if any(a.type in INTEGERS for a in node.attribute)])
    attribute = chance.choice([a for a in node.attribute if a.type in INTEGERS])
    if attribute.type == onnx.AttributeProto.INT:
        attribute.i = chance.choice(NUMBERS)
    else:
        attribute.ints[:] = [chance.choice(NUMBERS) for _ in range(chance.choice((0, len(attribute.ints), 5)))]
    return f"{node.op_type} {attribute.name}={attribute.i or list(attribute.ints)}"


def no_attribute(model: onnx.ModelProto, chance: random.Random) -> str:
    node = chance.choice([node for node in model.graph.node if node.attribute])
    removed = node.attribute.pop(chance.randrange(len(node.attribute)))
    return f"{node.op_type} without {removed.name}"


def inline(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Return the tensors whose bytes are in the file of the graph."""
    return [tensor for tensor in model.graph.initializer if tensor.data_location != TensorProto.EXTERNAL]


def other_place(model: onnx.ModelProto, chance: random.Random) -> str:
    """Change the offset or length of a tensor in the file of weights, also beyond its end."""
    tensors = [tensor for tensor in model.graph.initializer if tensor.data_location == TensorProto.EXTERNAL]
    if not tensors:
        return no_node(model, chance)
    entry = chance.choice(chance.choice(tensors).external_data)
    paths = ("manifest.json", "../forged/manifest.json", "/etc/passwd", "", ".", "\0")
    entry.value = chance.choice(paths) if entry.key == "location" else str(chance.choice((*NUMBERS, int(entry.value) + 4)))
    return f"{entry.key} is {entry.value}"


def other_dims(model: onnx.ModelProto, chance: random.Random) -> str:
    """Change the shape of a tensor, and in some cases its bytes to fit it."""
    tensor = chance.choice(inline(model))
    was = list(tensor.dims)
    tensor.dims[:] = chance.choice((was[::-1], [*was, 1], [0, *was], was[1:], [2 * side for side in was], [1 << 31, *was]))
    size = {number: size for number, (_, size) in ELEMENTS.items()}[tensor.data_type]
    wanted = size
    for side in tensor.dims:
        wanted *= side
    if wanted < 1 << 20 and chance.random() < 0.7:
        tensor.raw_data = (tensor.raw_data * (wanted // max(len(tensor.raw_data), 1) + 1))[:wanted] or bytes(wanted)
    return f"{tensor.name} {was} is {list(tensor.dims)}"


def other_type(model: onnx.ModelProto, chance: random.Random) -> str:
    """Change the element type of a tensor, and its bytes to fit it."""
    tensor = chance.choice(inline(model))
    tensor.data_type = chance.choice([*ELEMENTS, TensorProto.DOUBLE, TensorProto.STRING, TensorProto.BFLOAT16])
    if tensor.data_type in ELEMENTS and tensor.HasField("raw_data"):
        count = 1
        for side in tensor.dims:
            count *= side
        tensor.raw_data = (tensor.raw_data * 8)[: count * ELEMENTS[tensor.data_type][1]]
    return f"{tensor.name} of type {tensor.data_type}"


def other_numbers(model: onnx.ModelProto, chance: random.Random) -> str:
    """Write extreme values to tensors of shapes and indices."""
    small = [tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.INT64]
    small += [a.t for node in model.graph.node for a in node.attribute if a.name == "value" and a.t.data_type == TensorProto.INT64]
    tensor = chance.choice(small)
    count = len(tensor.raw_data) // 8
    tensor.raw_data = b"".join(chance.choice(NUMBERS).to_bytes(8, "little", signed=True) for _ in range(count))
    return f"numbers of {tensor.name or 'a constant'}"


def no_node(model: onnx.ModelProto, chance: random.Random) -> str:
    return f"no {model.graph.node.pop(chance.randrange(len(model.graph.node))).op_type}"


def no_tensor(model: onnx.ModelProto, chance: random.Random) -> str:
    return f"no {model.graph.initializer.pop(chance.randrange(len(model.graph.initializer))).name}"


def other_version(model: onnx.ModelProto, chance: random.Random) -> str:
    if chance.random() < 0.3:
        model.ir_version = chance.choice((0, 1, 99))
        return f"IR {model.ir_version}"
    opset = chance.choice(model.opset_import)
    opset.version = chance.choice((0, 1, 7, 13, 21, 25, 99))
    return f"{opset.domain or 'ai.onnx'} {opset.version}"


GRAPH_EDITS: tuple[Callable[[onnx.ModelProto, random.Random], str], ...] = (
    other_operator, other_domain, other_input, other_input, fewer_inputs, more_inputs, other_attribute, other_attribute, no_attribute,
    other_dims, other_dims, other_place, other_place, other_type, other_numbers, other_numbers, no_node, no_tensor, other_version,
)  # fmt: skip
