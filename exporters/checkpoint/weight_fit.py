"""Compare the tensors of a checkpoint with those of the model that config.json describes."""

from collections.abc import Mapping

from torch import Tensor

NAMED = 5
"""Problems that a message names."""


def fit_problem(weights: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> str | None:
    """Return why weights cannot be those of the model, with the cure, or None. The first five problems are named.

    Args:
        weights: Name → tensor.
        expected: Name → shape of each parameter of the model.
    """
    if quantized := [name for name, tensor in weights.items() if name in expected and not _is_plain(tensor)]:
        others = f", and {len(quantized) - 1} more tensors are quantized" if len(quantized) > 1 else ""
        cure = "export the FP32, FP16 or BF16 weights that it was quantized from"
        return f"{quantized[0]} has the type {weights[quantized[0]].dtype}{others}; {cure}"
    problems = _missing(weights, expected)
    problems += [f"unknown tensor {name}" for name in sorted(set(weights) - set(expected))]
    problems += [
        f"{name} has shape {list(weights[name].shape)}, the config requires {list(shape)}"
        for name, shape in expected.items()
        if name in weights and tuple(weights[name].shape) != shape
    ]
    cure = "save the whole model with save_pretrained, and do not edit its config.json" if problems else "export an earlier checkpoint"
    problems += [f"{name} contains NaN or infinite values" for name in expected if name in weights and not weights[name].isfinite().all()]
    return f"weights do not fit the config: {_summary(problems)}; {cure}" if problems else None


def _missing(weights: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return the missing tensors; a part of the model without any tensor is one problem."""
    parts: dict[str, list[str]] = {}
    for name in sorted(expected):
        parts.setdefault(name.split(".")[0], []).append(name)
    problems = []
    for part, names in parts.items():
        missing = [f"missing tensor {name}" for name in names if name not in weights]
        problems += [f"missing tensor {part}.* (all {len(names)})"] if len(missing) == len(names) else missing
    return problems


def _summary(problems: list[str]) -> str:
    return "; ".join(problems[:NAMED]) + (f"; and {len(problems) - NAMED} more" if len(problems) > NAMED else "")


def _is_plain(tensor: Tensor) -> bool:
    """Return whether a tensor has a number format that transformers computes with: not integers and not FP8."""
    return tensor.is_floating_point() and tensor.itemsize > 1
