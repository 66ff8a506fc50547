"""`toolkit finetune`: train a checkpoint to lose less with a recipe, and print the path of the result."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from exporters.recipes import find_recipe
from runtimes.errors import DatasetError, MissingDependencyError, UnavailableError
from runtimes.host.facts import read_host
from toolkit.commands.options import FOLDER, POSITIVE, announce, revision_option, threads_option
from toolkit.progress import progress

if TYPE_CHECKING:
    from exporters.finetune.distill import Progress

EPILOG = "Example: toolkit finetune models/blip-mini-coco --recipe onnx-int4 --dataset captions.json --output models/blip-mini-coco-int4"


@click.command(epilog=EPILOG)
@click.argument("checkpoint")
@click.option("--recipe", required=True, metavar="NAME|FILE", help="Recipe of the artifact that the result is for.")
@click.option(
    "--dataset",
    "datasets",
    multiple=True,
    required=True,
    metavar="FILE",
    help="Images with captions to train with (repeatable): a captions.json or its folder, or captions of COCO.",
)
@click.option("--images", type=FOLDER, help="Folder of the images, for captions of COCO.")
@click.option("-o", "--output", type=FOLDER, required=True, help="Folder of the result, a checkpoint; it must not exist.")
@click.option("--epochs", type=POSITIVE, default=2, show_default=True, help="Passes over the dataset.")
@click.option(
    "--learning-rate", type=click.FloatRange(min=0, min_open=True), default=3e-5, show_default=True, help="Largest learning rate."
)
@click.option("--batch-size", type=POSITIVE, default=16, show_default=True, help="Images per step.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the held-out part and of the order of images.")
@click.option("--limit", type=POSITIVE, help="Use this many images of each dataset, chosen with a fixed seed.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Device to train on.")
@threads_option
@click.option("--resume", is_flag=True, help="Continue a run that was stopped.")
@revision_option
def command(
    checkpoint: str,
    recipe: str,
    datasets: tuple[str, ...],
    images: Path | None,
    output: Path,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
    limit: int | None,
    device: str,
    threads: int | None,
    resume: bool,
    revision: str | None,
) -> None:
    """Train a checkpoint to lose less with a recipe.

    Training computes with the rounding of the recipe (quantization-aware training). The checkpoint's FP32 logits are the target. A part of
    the images is held out: training stops when the divergence from FP32 on them no longer falls, and the best weights are written. Export
    the result with the same recipe.
    """
    chosen = find_recipe(recipe)
    try:
        import torch

        from exporters.checkpoint.checkpoint import open_checkpoint
        from exporters.finetune.checkpoint_writer import check_output
        from exporters.finetune.distill import TrainingSettings
        from exporters.finetune.finetune import finetune
    except ModuleNotFoundError as error:
        raise MissingDependencyError(error.name or "a package", "fine-tuning", "export") from error
    from toolkit.datasets import load_dataset

    check_output(output)
    if device == "cuda" and not torch.cuda.is_available():
        raise UnavailableError("--device cuda: torch finds no CUDA device; use --device cpu")
    loaded = [load_dataset(name, images, limit) for name in datasets]
    if bare := [dataset for dataset in loaded if not dataset.has_references]:
        raise DatasetError(bare[0].name, "has no captions; fine-tuning needs images with captions")
    examples = [image for dataset in loaded for image in dataset.images]
    torch.set_num_threads(threads or read_host().cores)
    with progress("images", len(examples)) as bar:
        result = finetune(
            open_checkpoint(checkpoint, revision),
            chosen,
            examples,
            output,
            TrainingSettings(epochs=epochs, learning_rate=learning_rate, batch_images=batch_size, seed=seed),
            device=torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"),
            resume=resume,
            on_image=lambda: bar.update(1),
            on_step=_report,
        )
    click.echo(str(result.path))
    announce(
        f"  divergence from FP32 on held-out images: {result.before:.4f} → {result.after:.4f} nat/token "
        f"(best of {result.steps} steps: {result.best_step}; {result.seconds / 60:.1f} min)"
    )


def _report(progress: "Progress") -> None:
    """Print a line at the start, after each evaluation, and every tenth step."""
    if progress.held_out_kl is None and progress.step % 10:
        return
    parts = [f"step {progress.step} of {progress.steps}"]
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.4f}")
    if progress.held_out_kl is not None:
        parts.append(f"held-out images {progress.held_out_kl:.4f}")
    if progress.seconds_left is not None:
        parts.append(f"{progress.seconds_left / 60:.1f} min left")
    announce(", ".join(parts))
