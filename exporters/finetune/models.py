"""The two modules of a fine-tuning run: the teacher in FP32, and the student, which computes with the rounding of the recipe.

Axes: B images, N vision tokens, D width, S pixels per side, R rows, T tokens, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor, nn

from exporters.checkpoint.checkpoint import Checkpoint
from exporters.finetune.fake_quantize import FakeWeight, fake_quantize
from exporters.finetune.quantized_layers import quantized_layers, stored_as_fp16, tie_heads
from exporters.recipe import Recipe
from runtimes.errors import RecipeError


class Models:
    """Teacher and student of a checkpoint and a recipe."""

    def __init__(self, checkpoint: Checkpoint, smoothed: Checkpoint, recipe: Recipe, device: torch.device) -> None:
        """Load the weights twice and prepare the student.

        Args:
            checkpoint: The checkpoint of the teacher.
            smoothed: The same with the recipe's smoothing, as the exporter quantizes it.
            recipe: The recipe.
            device: Device of both modules.

        Raises:
            CheckpointError: The weights cannot be read.
            RecipeError: The task cannot be fine-tuned; or see `quantized_layers`.
        """
        self.checkpoint, self.device = checkpoint, device
        if checkpoint.family.forced is None:
            raise RecipeError(
                f"{checkpoint.name}: checkpoints of the task '{checkpoint.family.task}' cannot be fine-tuned; export it without"
            )
        self._forced = checkpoint.family.forced
        schemes, fp16 = quantized_layers(checkpoint, recipe), stored_as_fp16(checkpoint, recipe)
        self.teacher: Any = checkpoint.load_model().to(device)
        self.student: Any = tie_heads(checkpoint, smoothed.load_model()).to(device)
        self.fakes: dict[str, FakeWeight] = fake_quantize(self.student, schemes, fp16)
        components = trained_components(checkpoint, recipe)
        self.trained: dict[str, nn.Parameter] = {
            name: parameter.requires_grad_(True)
            for name, parameter in self.student.named_parameters()
            if checkpoint.family.component_of(name) in components and name not in fp16
        }
        self.trains_encoder = any(self._forced.computes_states(name) for name in self.trained)
        """Whether the student's image states change during training."""

    def states(self, model: Any, pixels: Tensor) -> Tensor:  # noqa: ANN401 - the family's module
        """Return the image states f[B,N,D] of pixels f32[B,3,S,S]."""
        return self._forced.image_states(model, pixels.to(self.device))

    def log_probabilities(self, model: Any, states: Tensor, token_ids: Tensor) -> Tensor:  # noqa: ANN401 - the family's module
        """Return f32[R,T,V], the log-probabilities of the token after each of token_ids i64[R,T]."""
        logits = self._forced.forced_logits(model, states.to(self.device), token_ids.to(self.device))
        return torch.log_softmax(logits.float(), dim=-1)


def trained_components(checkpoint: Checkpoint, recipe: Recipe) -> set[str]:
    """Return the components to train: those with 4-bit layers, or else all that are quantized and not smoothed.

    An export would smooth trained weights again, and so change them. Frozen weights are written as in the original.

    Raises:
        RecipeError: A component that should be trained is smoothed.
    """
    components = {name: recipe.component(name) for name in checkpoint.family.components}
    chosen = {name for name, part in components.items() if any(layer.weights == "qint4" for layer in part.formats)}
    chosen = chosen or {name for name, part in components.items() if any(layer.quantized for layer in part.formats) and not part.smooth}
    refused = sorted(name for name in chosen or components if components[name].smooth)
    if refused:
        raise RecipeError(f"{recipe.name}: {refused[0]} cannot be smoothed and trained; set its 'smooth' to null in a recipe file")
    return chosen
