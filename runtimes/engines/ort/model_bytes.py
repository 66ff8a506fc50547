"""Write small ONNX models as bytes, without the `onnx` package.

The fields are in protobuf's wire format. A key is field number * 8 + wire type; type 0 is a varint, type 2 is bytes with their length.
The field numbers are those of onnx.proto.
"""

IR_VERSION, OPSET = 8, 13

ELEMENT_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "float16": 10}


def model_of(graph: bytes) -> bytes:
    """Return a ModelProto with the given GraphProto."""
    return number(1, IR_VERSION) + bytes_field(7, graph) + bytes_field(8, number(2, OPSET))


def value_info(name: str, kind: str, shape: tuple[int, ...] | None) -> bytes:
    """Return the ValueInfoProto of a tensor. With the shape None, rank and sizes are variable."""
    tensor = number(1, ELEMENT_TYPES[kind])
    if shape is not None:
        tensor += bytes_field(2, b"".join(bytes_field(1, number(1, size)) for size in shape))
    return text(1, name) + bytes_field(2, bytes_field(1, tensor))


def number(field: int, value: int) -> bytes:
    """Return a field that contains a number."""
    return _varint(field << 3) + _varint(value)


def text(field: int, content: str) -> bytes:
    """Return a field that contains a string."""
    return bytes_field(field, content.encode())


def bytes_field(field: int, content: bytes) -> bytes:
    """Return a field that contains bytes or a message."""
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Encode a number with seven bits per byte, lowest first. The top bit is set if another byte follows."""
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])
