"""Fine-tune a checkpoint for a recipe.

The steps are:
1. Read the captions, and compute the image states of all images.
2. Distill the FP32 checkpoint into a student that computes with the rounding of the recipe, and stop early on a held-out part.
3. Write a checkpoint with the best weights. They are rounded: each lies on the grid of its layer's format. The exporter reproduces the
   codes, because a weight on the grid has no error to reduce.

Everything unfinished is in a hidden folder beside the output, from which a stopped run continues.

Axes: B images, S pixels per side.
"""

import hashlib
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from exporters.calibration.activations import Calibration
from exporters.calibration.smoothing import smoothed
from exporters.checkpoint.checkpoint import Checkpoint
from exporters.finetune.checkpoint_writer import check_output, write_checkpoint
from exporters.finetune.distill import Distiller, Progress, TrainingSettings
from exporters.finetune.examples import TrainingExample, check_count, split, tokenized
from exporters.finetune.image_states import ImageStates
from exporters.finetune.models import Models
from exporters.finetune.training_state import TrainingState, read_state
from exporters.gate.labelled_image import LabelledImage
from exporters.recipe import Recipe
from runtimes.artifact import json_dataclass
from runtimes.artifact.folder import sha256_of
from runtimes.errors import DatasetError, ImageReadError, OutputError, OutputExistsError, ToolkitError
from runtimes.images.reading import preprocess, read_image
from runtimes.storage.atomic_write import locked

logger = logging.getLogger(__name__)

STATES_BATCH = 8
"""Images per run of the encoders while the image states are computed."""


@dataclass(frozen=True, kw_only=True)
class FinetuneResult:
    """Result of a run."""

    path: Path
    before: float
    """Mean KL of the held-out part before training, in nat per token."""
    after: float
    steps: int
    best_step: int
    seconds: float


def finetune(
    checkpoint: Checkpoint,
    recipe: Recipe,
    images: Sequence[LabelledImage],
    output: Path,
    settings: TrainingSettings,
    *,
    device: torch.device,
    resume: bool = False,
    on_image: Callable[[], None] = lambda: None,
    on_step: Callable[[Progress], None] = lambda progress: None,
) -> FinetuneResult:
    """Fine-tune a checkpoint for a recipe and write the result.

    Args:
        checkpoint: The original.
        recipe: A recipe of the runtime "ort" with quantized layers.
        images: Images with captions.
        output: Folder of the result, which must not exist.
        settings: Settings of the training.
        device: Device of both models.
        resume: Continue a run that was stopped.
        on_image: Called after the image states of each image.
        on_step: Called after each step.

    Raises:
        RecipeError: The recipe cannot be trained, see `quantized_layers`.
        DatasetError: Too few images with captions can be read.
        OutputExistsError: The output exists, or it has an unfinished run and `resume` is false.
        OutputError: The output cannot be written.
        RequestError: The unfinished run had other settings, or the checkpoint generates no texts.
    """
    checkpoint.require_generator("fine-tuning")
    recipe.check_components(checkpoint.family.components)
    check_output(output)
    working = output.with_name(f".{output.name}.unfinished")
    if working.exists() and not resume:
        raise OutputExistsError(working, "It is a run that was stopped: continue it with --resume, or delete the folder.")
    examples = tokenized(images, checkpoint)
    fingerprint = _fingerprint(checkpoint, recipe, images, settings)
    prepared = smoothed(checkpoint, recipe, Calibration(), torch.get_num_threads())
    models = Models(checkpoint, prepared, recipe, device)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with locked(output):
            working.mkdir(exist_ok=True)
            state = read_state(working, fingerprint)
            if state is None:
                state = TrainingState(fingerprint=fingerprint, readable=_compute_states(models, examples, working, on_image))
            _train(models, examples, working, state, settings, on_step)
            write_checkpoint(checkpoint, _rounded_weights(models, state), _record(checkpoint, recipe, settings, state), output)
            shutil.rmtree(working, ignore_errors=True)
    except DatasetError:
        shutil.rmtree(working, ignore_errors=True)
        raise
    except OSError as error:
        if isinstance(error, ToolkitError):
            raise
        raise OutputError(output, error.strerror or str(error)) from error
    return FinetuneResult(
        path=output,
        before=state.history[0][1],
        after=state.best_kl,
        steps=state.step,
        best_step=state.best_step,
        seconds=state.seconds,
    )


def _train(
    models: Models,
    examples: Sequence[TrainingExample],
    folder: Path,
    state: TrainingState,
    settings: TrainingSettings,
    on_step: Callable[[Progress], None],
) -> None:
    """Run the steps that are left; `state` then contains the best weights. The state is written to the folder after each evaluation."""
    training, held_out = ([state.readable[index] for index in part] for part in split(len(state.readable), settings.seed))
    teacher_states = _opened(models, folder / "teacher.npy", len(examples))
    student_states = None if models.trains_encoder else _opened(models, folder / "student.npy", len(examples))

    def pixels(batch: Sequence[int]) -> Tensor:
        return _pixels(models.checkpoint, [examples[index] for index in batch])

    distiller = Distiller(models, examples, pixels, (teacher_states, student_states), settings)
    distiller.train(training, held_out, state, lambda current: current.write(folder), on_step)


def _compute_states(models: Models, examples: Sequence[TrainingExample], folder: Path, on_image: Callable[[], None]) -> list[int]:
    """Store the image states of all images; return the indices of those that can be read."""
    for name in ("teacher.npy", "student.npy"):
        (folder / name).unlink(missing_ok=True)
    readable: list[int] = []
    problems: list[str] = []
    stored = {"teacher.npy": models.teacher} | ({} if models.trains_encoder else {"student.npy": models.student})
    files = {name: _opened(models, folder / name, len(examples)) for name in stored}
    for start in range(0, len(examples), STATES_BATCH):
        batch, pixels = [], []
        for index in range(start, min(start + STATES_BATCH, len(examples))):
            try:
                pixels.append(_pixels(models.checkpoint, [examples[index]]))
                batch.append(index)
            except ImageReadError as error:
                problems.append(str(error))
            on_image()
        if batch:
            with torch.no_grad():
                for name, model in stored.items():
                    files[name][batch] = models.states(model, torch.cat(pixels))
        readable += batch
    for file in files.values():
        file.flush()
    if problems:
        logger.warning("%d images cannot be read and are not used (first: %s)", len(problems), problems[0])
    check_count(len(readable))
    return readable


def _opened(models: Models, path: Path, images: int) -> ImageStates:
    """Open or create a file of image states."""
    spec = models.checkpoint.image
    with torch.no_grad():
        shape = models.states(models.teacher, torch.zeros(1, 3, spec.height_px, spec.width_px)).shape[1:]
    return ImageStates(path, images, shape)


def _pixels(checkpoint: Checkpoint, examples: Sequence[TrainingExample]) -> Tensor:
    """Return the pixels f32[B,3,S,S] of images.

    Raises:
        ImageReadError: An image cannot be read.
    """
    return torch.stack([torch.from_numpy(preprocess(read_image(example.path), checkpoint.image)) for example in examples])


def _rounded_weights(models: Models, state: TrainingState) -> dict[str, Tensor]:
    """Return all weights: those of trained layers rounded to the grid of their format, the other trained ones, and the original ones."""
    weights = models.checkpoint.load_weights()
    for name, values in state.best_parameters.items():
        fake = models.fakes.get(name)
        weights[name] = (values if fake is None else fake.scheme.weights(values)).cpu()
    return weights


def _fingerprint(checkpoint: Checkpoint, recipe: Recipe, images: Sequence[LabelledImage], settings: TrainingSettings) -> str:
    """Return a hash of everything that the result depends on, except the machine."""
    rows = [[sha256_of(image.path) if image.path.is_file() else None, list(image.texts)] for image in images]
    content = [checkpoint.source.sha256, recipe.sha256, rows, asdict(settings)]
    return hashlib.sha256(json_dataclass.canonical_json(content)).hexdigest()


def _record(checkpoint: Checkpoint, recipe: Recipe, settings: TrainingSettings, state: TrainingState) -> dict[str, Any]:
    """Return the settings and results of a run, as JSON values."""
    return {
        "source": json_dataclass.dump(checkpoint.source),
        "recipe": {**json_dataclass.dump(recipe), "sha256": recipe.sha256},
        "settings": asdict(settings),
        "images": len(state.readable),
        "steps": state.step,
        "best_step": state.best_step,
        "held_out_kl": [{"step": step, "nat_per_token": round(kl, 6)} for step, kl in state.history],
        "seconds": round(state.seconds, 1),
    }
