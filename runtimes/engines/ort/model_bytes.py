"""ONNX models of one operator as bytes, written without `onnx`.

The few fields are written in protobuf's wire format (a key is field * 8 + kind; kind 0 is a number, kind 2 bytes with their length),
numbered as in ONNX's schema.
"""

IR_VERSION, OPSET = 8, 13

ELEMENT_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "float16": 10}


def model_of(graph: bytes) -> bytes:
    """Return a model that holds the fields of a GraphProto."""
    return number(1, IR_VERSION) + bytes_field(7, graph) + bytes_field(8, number(2, OPSET))


def value_info(name: str, kind: str, shape: tuple[int, ...] | None) -> bytes:
    """Return the ValueInfoProto of a tensor; None: its rank and sizes are not fixed."""
    tensor = number(1, ELEMENT_TYPES[kind])
    if shape is not None:
        tensor += bytes_field(2, b"".join(bytes_field(1, number(1, size)) for size in shape))
    return text(1, name) + bytes_field(2, bytes_field(1, tensor))


def number(field: int, value: int) -> bytes:
    """Return a field with a number."""
    return _varint(field << 3) + _varint(value)


def text(field: int, content: str) -> bytes:
    """Return a field with a text."""
    return bytes_field(field, content.encode())


def bytes_field(field: int, content: bytes) -> bytes:
    """Return a field with bytes or a message."""
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Seven bits a byte, lowest first; the top bit says that more follow."""
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])
