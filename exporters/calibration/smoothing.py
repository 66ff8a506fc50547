"""SmoothQuant (Xiao et al. 2023): move the scales of activation outliers into weights before quantization.

Channels of trained vision transformers differ by factors of 10 to 100. One range for all of them leaves few integers for the small ones.
For each `Fold` of the family, channel j is divided by s_j = max|X_j|^alpha / max|W_j|^(1 - alpha). The model computes the same, its size
and its run time stay the same, and all engines quantize the same weights.
"""

from dataclasses import replace

import torch
from torch import Tensor

from exporters.calibration.activations import Activations, Calibration
from exporters.calibration.local_error import squared_error
from exporters.checkpoint.checkpoint import Checkpoint
from exporters.families.folding import Smoothing
from exporters.recipes import Layer, Recipe
from runtimes.engines.pytorch.threads import CpuThreads

ALPHAS = (0.0, 0.25, 0.5, 0.65, 0.8)
"""Candidates of "auto"; 0 leaves the layer unchanged. Token-local outliers, which a large alpha makes worse, get a small one."""
LEAST_GAIN = 0.5
"""A layer is smoothed only if that multiplies its squared error by less than this. Without outliers, weights stay as they are."""
SCALE_RANGE = (1e-2, 1e4)
"""Range of scales, relative to their geometric mean. A channel that is almost 0 on all calibration images may be large on another image."""


def smoothed(checkpoint: Checkpoint, recipe: Recipe, calibration: Calibration, activation_bits: int, threads: int) -> Checkpoint:
    """Return a checkpoint whose weights contain the scales that a recipe needs; the checkpoint itself if the recipe smooths nothing.

    Args:
        checkpoint: With the image scale of the recipe.
        recipe: Its components' `smooth` applies to the layers that read the scaled channels.
        calibration: Images.
        activation_bits: Bits of an activation of the engine's INT8 products.
        threads: CPU threads.

    Raises:
        DatasetError: A calibration image cannot be read.
    """
    family = checkpoint.family
    components = [name for name in family.components if recipe.component(name).smooth]
    if not components:
        return checkpoint
    alphas: dict[str, float] = {}
    scales: dict[str, Tensor] = {}
    with CpuThreads(threads), torch.no_grad():
        activations = calibration.activations(checkpoint, components)
        weights = checkpoint.load_weights()
        for fold in family.folds(checkpoint.model):
            component = recipe.component(family.component_of(fold.consumers[0]))
            consumers = [(weights[f"{name}.weight"], component.layer(family.layer_of(name))) for name in fold.consumers]
            if not component.smooth or not any(layer.quantized for _, layer in consumers):
                continue
            candidates = ALPHAS if component.smooth == "auto" else (component.smooth,)
            alpha, scale = _best(activations[fold.source], consumers, candidates, activation_bits)
            alphas[fold.source] = alpha
            if alpha:
                scales[fold.source] = scale
    return replace(checkpoint, smoothing=Smoothing(images=len(calibration.images), alphas=alphas, scales=scales))


def channel_scales(activation_maxima: Tensor, weight_maxima: Tensor, alpha: float) -> Tensor:
    """Return the scales of channels, f32[C], with a geometric mean of about 1.

    A channel without finite, positive maxima gets the scale 1. With alpha 0, all scales are 1.

    Args:
        activation_maxima: f32[C], largest magnitude of each channel.
        weight_maxima: f32[C], largest magnitude of the weights that read the channel.
        alpha: From 0 to 1.
    """
    usable = (activation_maxima > 0) & activation_maxima.isfinite() & (weight_maxima > 0)
    if not alpha or not usable.any():
        return torch.ones_like(activation_maxima)
    logarithms = alpha * activation_maxima[usable].log() - (1 - alpha) * weight_maxima[usable].log()
    scales = torch.ones_like(activation_maxima)
    scales[usable] = (logarithms - logarithms.mean()).exp().clamp(*SCALE_RANGE)
    return scales


def _best(
    activations: Activations, consumers: list[tuple[Tensor, Layer]], alphas: tuple[float, ...], activation_bits: int
) -> tuple[float, Tensor]:
    """Return the alpha with the least squared error of the quantized consumers' outputs, and its scales.

    The first alpha wins ties and NaN. Against 0, which comes first, the others need `LEAST_GAIN`.
    """
    weight_maxima = torch.stack([weight.abs().amax(dim=0) for weight, _ in consumers]).amax(dim=0)
    best = alphas[0], channel_scales(activations.maxima, weight_maxima, alphas[0])
    if len(alphas) == 1:
        return best
    least = float("inf")
    for alpha in alphas:
        scales = channel_scales(activations.maxima, weight_maxima, alpha)
        error = sum(squared_error(activations, weight, scales, layer, activation_bits) for weight, layer in consumers if layer.quantized)
        if error < least:
            least, best = error if alpha else LEAST_GAIN * error, (alpha, scales)
    return best
