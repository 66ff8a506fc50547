"""Copies of a checkpoint with activation outliers in the vision encoder, which quantizers with few scales cannot represent.

    python -m tests.stress channel 30 models/blip-mini-coco build/stress/channel-30

- channel: channels behind the LayerNorms are large for all tokens. The function in FP32 is unchanged, and SmoothQuant inverts the change.
- gelu: neurons behind GELU are large for all tokens. No scale passes through GELU, so SmoothQuant cannot invert it.
- token: one neuron per layer behind GELU is large for about 1 % of the tokens and 0 for the others (Sun et al. 2024, massive activations).

A token-local outlier behind a LayerNorm is bounded by sqrt(D-1) times its weight, so it does not need a copy of its own.
For gelu and token, the function in FP32 changes slightly: GELU becomes ReLU for the chosen neurons.
"""

import argparse
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional

from exporters.checkpoint.checkpoint import Checkpoint, open_checkpoint
from runtimes.images.reading import preprocess, read_image
from tests.paths import ROOT

LAYERS, FIRST_NORM = "vision_model.encoder.layers.", ".layer_norm1.weight"
CALIBRATION_IMAGES = 8
"""Number of images whose activations choose the neurons of `add_token_outliers`."""
QUANTILE = 0.99
"""Part of the tokens for which a token-local neuron is 0."""

Weights = dict[str, Tensor]


def add_channel_outliers(weights: Weights, source: Path, scale: float, count: int = 4, seed: int = 1) -> None:
    """Multiply `count` channels of both LayerNorms of each layer by `scale` and divide the columns of `qkv` and `fc1` by it."""
    del source
    generator = torch.Generator().manual_seed(seed)
    for layer in _layers(weights):
        for norm, linear in (("layer_norm1", "self_attn.qkv"), ("layer_norm2", "mlp.fc1")):
            chosen = torch.randperm(weights[f"{layer}.{norm}.weight"].numel(), generator=generator)[:count]
            weights[f"{layer}.{norm}.weight"][chosen] *= scale
            weights[f"{layer}.{norm}.bias"][chosen] *= scale
            weights[f"{layer}.{linear}.weight"][:, chosen] /= scale


def add_gelu_outliers(weights: Weights, source: Path, scale: float, count: int = 4, seed: int = 1) -> None:
    """Multiply `count` rows and biases of `fc1` of each layer by `scale` and divide the columns of `fc2` by it."""
    del source
    generator = torch.Generator().manual_seed(seed)
    for layer in _layers(weights):
        chosen = torch.randperm(weights[f"{layer}.mlp.fc1.bias"].numel(), generator=generator)[:count]
        weights[f"{layer}.mlp.fc1.weight"][chosen] *= scale
        weights[f"{layer}.mlp.fc1.bias"][chosen] *= scale
        weights[f"{layer}.mlp.fc2.weight"][:, chosen] /= scale


def add_token_outliers(weights: Weights, source: Path, scale: float, count: int = 1, seed: int = 1) -> None:
    """Make the most selective neurons of each layer positive for about 1 % of the tokens and `scale` times as large as other neurons.

    A neuron's mean contribution that its new bias removes is added to the bias of `fc2`.
    """
    del seed
    for layer, inputs in _inner_activations(open_checkpoint(str(source))).items():
        thresholds = inputs.quantile(QUANTILE, dim=0)
        peaks = inputs.amax(dim=0) - thresholds
        typical = functional.gelu(inputs).amax(dim=0).median()
        for neuron in (peaks / inputs.std(dim=0)).topk(count).indices.tolist():
            factor = scale * typical / peaks[neuron]
            column = weights[f"{layer}.mlp.fc2.weight"][:, neuron].clone()
            removed = functional.gelu(inputs[:, neuron]).mean() - functional.relu(inputs[:, neuron] - thresholds[neuron]).mean()
            weights[f"{layer}.mlp.fc2.bias"] += column * removed
            weights[f"{layer}.mlp.fc1.weight"][neuron] *= factor
            weights[f"{layer}.mlp.fc1.bias"][neuron] = (weights[f"{layer}.mlp.fc1.bias"][neuron] - thresholds[neuron]) * factor
            weights[f"{layer}.mlp.fc2.weight"][:, neuron] = column / factor


KINDS: dict[str, Callable[..., None]] = {"channel": add_channel_outliers, "token": add_token_outliers, "gelu": add_gelu_outliers}
"""Kind → function (weights, source, scale, count=, seed=) that modifies the weights in place."""


def write_stressed(kind: str, source: Path, directory: Path, scale: float, **options: int) -> Path:
    """Write a copy of a checkpoint with outliers; the same arguments give the same bytes.

    Args:
        kind: Key of `KINDS`.
        source: Checkpoint in Hugging Face's layout, with its weights in one file.
        directory: Folder of the copy; created.
        scale: Size of the outliers, relative to ordinary activations.
        options: `count` and `seed` of the kind's function.
    """
    shutil.copytree(source, directory)
    file = directory / "model.safetensors"
    weights = {name: tensor.float() for name, tensor in safetensors.torch.load_file(file).items()}
    KINDS[kind](weights, source, scale, **options)
    safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in weights.items()}, file, metadata={"format": "pt"})
    return directory


def _layers(weights: Weights) -> list[str]:
    return sorted(name.removesuffix(FIRST_NORM) for name in weights if name.startswith(LAYERS) and name.endswith(FIRST_NORM))


def _inner_activations(checkpoint: Checkpoint) -> Weights:
    """Return layer → inputs f32[tokens,inner] of GELU for the first calibration images."""
    model = checkpoint.load_model()
    inputs: Weights = {}

    def record(layer: str) -> Callable[..., None]:
        return lambda _module, _arguments, output: inputs.update({layer: output.flatten(0, 1)})

    for name, module in model.named_modules():
        if name.startswith(LAYERS) and name.endswith(".mlp.fc1"):
            module.register_forward_hook(record(name.removesuffix(".mlp.fc1")))
    files = sorted((ROOT / "exporters" / "calibration").glob("*.jpg"))[:CALIBRATION_IMAGES]
    pixels = torch.stack([torch.from_numpy(preprocess(read_image(file), checkpoint.image)) for file in files])
    with torch.inference_mode():
        model.encode(pixels)
    return inputs


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a copy from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress", description="Write a copy of a checkpoint with activation outliers.")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("scale", type=float)
    parser.add_argument("source", type=Path)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    print(write_stressed(options.kind, options.source, options.directory, options.scale, seed=options.seed))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
