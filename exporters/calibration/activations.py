"""Record the inputs of linear layers over calibration images, in bounded memory.

The torch module runs as an engine does: each image is encoded with its own range of activations, and the decoder computes the module's own
greedy captions one token per run. No captions by people are needed.

Axes: G runs (images, or tokens of the decoder), K rows kept of a run, C channels.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from exporters.checkpoint.checkpoint import Checkpoint
from runtimes.decoding.tokenizer import CaptionTokenizer
from runtimes.errors import DatasetError, ImageReadError
from runtimes.families.registry import ModelSpec
from runtimes.images.reading import preprocess, read_image

SHIPPED = tuple(sorted(Path(__file__).parent.glob("*.jpg")))
"""The images that ship with the toolkit."""
MAX_IMAGES = 64
"""Of more images, this many are used, evenly spaced. PTQ4ViT (Yuan et al. 2022) found no gain of 128 images over 32."""
BATCH = 8
ROWS = 8
"""Rows of a run that are kept for the local error."""
SEED = 0


@dataclass(frozen=True, kw_only=True)
class Activations:
    """Inputs of a linear layer."""

    lowest: Tensor
    """f32[G,C], the minimum of each channel in each run."""
    highest: Tensor
    """f32[G,C], the maximum."""
    rows: Tensor
    """f32[G,K,C], a fixed random choice of each run's rows."""

    @property
    def maxima(self) -> Tensor:
        """Return the largest magnitude of each channel, f32[C]."""
        return torch.maximum(-self.lowest.amin(dim=0), self.highest.amax(dim=0))


class _Recorder:
    """Forward hook that keeps a summary of a layer's inputs."""

    def __init__(self) -> None:
        self.runs: list[tuple[Tensor, Tensor, Tensor]] = []
        self._generator = torch.Generator().manual_seed(SEED)

    def __call__(self, _module: nn.Module, arguments: tuple[Tensor]) -> None:
        (inputs,) = arguments
        chosen = torch.randperm(inputs.shape[1], generator=self._generator)[:ROWS]
        self.runs.append((inputs.amin(dim=1), inputs.amax(dim=1), inputs[:, chosen]))

    def activations(self) -> Activations:
        lowest, highest, rows = (torch.cat(parts) for parts in zip(*self.runs, strict=True))
        return Activations(lowest=lowest, highest=highest, rows=rows)


class Calibration:
    """Calibration images, and the activations that were recorded over them."""

    def __init__(self, images: Sequence[Path] = SHIPPED) -> None:
        """Set the images; they are read when activations are needed.

        Args:
            images: At least one. Of more than `MAX_IMAGES`, evenly spaced ones are used.

        Raises:
            DatasetError: There is no image.
        """
        if not images:
            raise DatasetError("calibration", "has no images")
        count = min(len(images), MAX_IMAGES)
        self.images = tuple(images[index * len(images) // count] for index in range(count))
        self._recorded: dict[ModelSpec, dict[str, Activations]] = {}

    def activations(self, checkpoint: Checkpoint, components: Collection[str]) -> Mapping[str, Activations]:
        """Return the activations of a checkpoint's folds, and record those that are missing.

        Args:
            checkpoint: With the image scale of the recipe, and without smoothing. Always of the same weights.
            components: Components whose folds are needed.

        Returns:
            `Fold.source` → inputs of its consumers.

        Raises:
            DatasetError: An image cannot be read.
        """
        family = checkpoint.family
        recorded = self._recorded.setdefault(checkpoint.model, {})
        missing = {
            fold.source: fold.consumers[0]
            for fold in family.folds(checkpoint.model)
            if fold.source not in recorded and family.component_of(fold.consumers[0]) in components
        }
        if missing:
            model = checkpoint.load_model()
            recorders = {source: _Recorder() for source in missing}
            for source, consumer in missing.items():
                model.get_submodule(consumer).register_forward_pre_hook(recorders[source])
            needed = {family.component_of(consumer) for consumer in missing.values()}
            tokenizer = CaptionTokenizer(checkpoint.tokenizer_json, checkpoint.tokenizer)
            size = 1 if family.calibration_inputs(tokenizer, 0) else BATCH  # questions of several images have several lengths
            with torch.inference_mode():
                for start in range(0, len(self.images), size):
                    pixels = torch.stack([self._pixels(image, checkpoint) for image in self.images[start : start + size]])
                    inputs = {name: torch.from_numpy(array) for name, array in family.calibration_inputs(tokenizer, start).items()}
                    family.run(model, pixels, checkpoint.tokenizer, needed, **inputs)
            recorded |= {source: recorders.pop(source).activations() for source in missing}
        return recorded

    def _pixels(self, image: Path, checkpoint: Checkpoint) -> Tensor:
        try:
            return torch.from_numpy(preprocess(read_image(image), checkpoint.image))
        except ImageReadError as error:
            raise DatasetError("calibration", f"{error}; remove this image or name other images") from error
