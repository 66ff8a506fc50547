"""Move scales of channels from a layer that writes them into the layers that read them, without changing what the model computes.

A LayerNorm or a projection writes channels; only linear layers read them. If channel j is divided by s_j where it is written and the
weights of input j are multiplied by s_j where it is read, all outputs stay the same (Xiao et al. 2023, SmoothQuant, section 4).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Fold:
    """A layer whose output channels have scales that its consumers can take over. Names are those of the torch module."""

    source: str
    """LayerNorm or linear layer that writes the channels."""
    consumers: tuple[str, ...]
    """Linear layers of one component: all that read the channels. Operations between, such as attention, do not mix channels."""
    first: int = 0
    """Index of the first of these channels among the outputs of `source`."""


@dataclass(frozen=True, kw_only=True)
class Smoothing:
    """Scales that are folded into the weights of a checkpoint."""

    images: int
    """Number of calibration images."""
    alphas: "Mapping[str, float]"
    """`Fold.source` → alpha of SmoothQuant, which divides the difficulty between activations and weights; 0 leaves the layer unchanged."""
    scales: "Mapping[str, Tensor]"
    """`Fold.source` → scales f32[C]. Folds with alpha 0 have no entry."""


def fold_scales(weights: "Mapping[str, Tensor]", folds: Iterable[Fold], scales: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Return weights with scales folded in. The given tensors are not modified.

    Args:
        weights: Parameter name → tensor f32. A tied tensor appears under each of its names.
        folds: The family's folds.
        scales: `Fold.source` → scales f32[C], positive.

    Raises:
        ValueError: A tensor that would be scaled has a second name: its other use would change.
    """
    folded = dict(weights)
    for fold in folds:
        if fold.source not in scales:
            continue
        scale = scales[fold.source]
        channels = slice(fold.first, fold.first + len(scale))
        for name in (f"{fold.source}.weight", f"{fold.source}.bias"):
            if name in folded:
                tensor = folded[name] = folded[name].clone()
                tensor[channels] /= scale.reshape(-1, *[1] * (tensor.dim() - 1))
        for consumer in fold.consumers:
            folded[f"{consumer}.weight"] = folded[f"{consumer}.weight"] * scale
    uses: dict[int, list[str]] = {}
    for name, tensor in weights.items():
        uses.setdefault(tensor.data_ptr(), []).append(name)
    for names in uses.values():
        if len(names) > 1 and any(folded[name] is not weights[name] for name in names):
            raise ValueError(f"{' and '.join(names)} are one tensor, so no scales can be folded into it")
    return folded
