"""SmoothQuant (Xiao et al. 2023): move the scales of activation outliers into weights before quantization.

Channels of trained vision transformers differ by factors of 10 to 100. One range for all of them leaves few integers for the small ones.
For each `Fold` of the family, channel j is divided by s_j = max|X_j|^alpha / max|W_j|^(1 - alpha). The model computes the same, its size
and its run time stay the same, and all engines quantize the same weights.
"""

from dataclasses import replace

import torch
from torch import Tensor

from exporters.calibration.activations import Activations, Calibration
from exporters.checkpoint.checkpoint import Checkpoint
from exporters.families.folding import Smoothing
from exporters.recipe import Recipe
from exporters.rounding.schemes import Scheme, scheme_of
from runtimes.engines.pytorch.threads import CpuThreads

ALPHAS = (0.0, 0.25, 0.5, 0.65, 0.8)
"""Candidates of "auto"; 0 leaves the layer unchanged. Token-local outliers, which a large alpha makes worse, get a small one."""
LEAST_GAIN = 0.02
"""With "auto", a layer is smoothed only if some alpha multiplies the squared error of its rounded activations by less than this.

A smoothed layer has other rounding errors, and not only smaller ones, so a model without outliers is better left as it is (decision 46).
On the calibration images, the layers of the shipped model reach 0.039, layers behind channels that are 10 times as large 0.005 to 0.035,
and behind channels that are 30 times as large less than 0.005.
"""
SCALE_RANGE = (1e-2, 1e4)
"""Range of scales, relative to their geometric mean. A channel that is almost 0 on all calibration images may be large on another image."""


def smoothed(checkpoint: Checkpoint, recipe: Recipe, calibration: Calibration, threads: int) -> Checkpoint:
    """Return a checkpoint whose weights contain the scales that a recipe needs; the checkpoint itself if the recipe smooths nothing.

    Args:
        checkpoint: With the image scale of the recipe.
        recipe: Its components' `smooth` applies to the layers that read the scaled channels.
        calibration: Images.
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
            layers = {name: component.layer(family.layer_of(name)) for name in fold.consumers}
            if not component.smooth or not any(layer.quantized for layer in layers.values()):
                continue
            matrices = {name: weights[f"{name}.weight"] for name in layers}
            consumers = [
                (matrices[name], scheme_of(layer, inputs=matrices[name].shape[1], is_table=False, runtime=recipe.runtime))
                for name, layer in layers.items()
            ]
            candidates = ALPHAS if component.smooth == "auto" else (component.smooth,)
            alpha, scale = _best(activations[fold.source], consumers, candidates)
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


def _best(activations: Activations, consumers: list[tuple[Tensor, Scheme | None]], alphas: tuple[float, ...]) -> tuple[float, Tensor]:
    """Return the alpha with the least squared error of the consumers' outputs, and its scales.

    The first alpha is used if the activations have no outliers (`LEAST_GAIN`), and wins ties and NaN.

    Args:
        activations: Inputs of the consumers.
        consumers: Weights f32[N,C] and their arithmetic; None: FP32.
        alphas: Candidates.
    """
    weight_maxima = torch.stack([weight.abs().amax(dim=0) for weight, _ in consumers]).amax(dim=0)
    scales = {alpha: channel_scales(activations.maxima, weight_maxima, alpha) for alpha in alphas}
    rounded = [(weight, scheme) for weight, scheme in consumers if scheme is not None]
    chosen = alphas[0]
    if len(alphas) > 1 and rounded:
        errors = {
            alpha: torch.stack([squared_errors(activations, weight, scales[alpha], scheme) for weight, scheme in rounded]).sum(dim=0)
            for alpha in alphas
        }
        of_activations, of_both = ({alpha: float(error[index]) for alpha, error in errors.items()} for index in (0, 1))
        if min(of_activations.values()) < LEAST_GAIN * of_activations[chosen]:
            chosen = min(alphas, key=of_both.__getitem__)
    return chosen, scales[chosen]


def squared_errors(activations: Activations, weight: Tensor, scales: Tensor, scheme: Scheme) -> Tensor:
    """Return two sums of squared errors of a layer's outputs on the kept rows, f32[2]: activations are rounded; weights too.

    Args:
        activations: Inputs of the layer.
        weight: f32[N,C].
        scales: f32[C]. The inputs are divided by them and the weights multiplied.
        scheme: Arithmetic of the layer.
    """
    ends = activations.lowest[:, None], activations.highest[:, None]  # two more rows have the range of the whole run
    rounded = scheme.activations(torch.cat([activations.rows, *ends], dim=1) / scales)[:, : -len(ends)]
    outputs = torch.stack([rounded @ matrix.T for matrix in (weight * scales, scheme.weights(weight * scales))])
    return (outputs - activations.rows @ weight.T).square().sum(dim=(1, 2, 3))
