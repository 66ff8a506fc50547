"""Measure fine-tuning for INT4: the divergence from FP32 before and after, on images that training does not see.

    python -m tests.quality.qat --output build/quality/qat.json --checkpoint models/blip-mini-coco --dataset sample --training FOLDER

Each recipe is measured on artifacts of the checkpoint and of its fine-tuned copy. The reference is the checkpoint in FP32.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.families.blip_reference import HfCaptioner
from exporters.gate.divergence import kl_divergence
from exporters.gate.drift import drift_of_sums, measure_drift
from exporters.gate.intervals import Float64, interval
from exporters.gate.labelled_image import LabelledImage
from runtimes import load
from runtimes.errors import ToolkitError
from tests.quality.sections import Row, write_section
from toolkit.datasets import load_dataset

RECIPES = ("onnx-int4", str(Path(__file__).with_name("int4-everywhere.json")))


def measured(artifact: Path, reference: HfCaptioner, images: Sequence[LabelledImage], threads: int) -> Float64:
    """Return the sums of each image over its tokens, f64[N,3]: KL(FP32 || artifact), decrease in log-probability, number of tokens."""
    captioner = load(artifact, threads=threads)
    sums = []
    for image in images:
        expected = reference.token_log_probabilities(image.path, captions=image.texts)
        actual = captioner.token_log_probabilities(image.path, captions=image.texts)
        ids = [captioner.text_ids(caption)[1:] for caption in image.texts]
        drops = [(a - b)[np.arange(len(row)), row].sum(dtype=np.float64) for a, b, row in zip(expected, actual, ids, strict=True)]
        kl = [kl_divergence(a, b).sum() for a, b in zip(expected, actual, strict=True)]
        sums.append((sum(kl), sum(drops), sum(map(len, ids))))
    return np.array(sums, dtype=np.float64)


def rows_of(recipe: str, limit: float | None, before: Float64, after: Float64, seconds: float | None) -> list[Row]:
    """Return the rows of one recipe: before, after, and the paired difference."""
    rows: list[Row] = []
    for stage, sums in (("before", before), ("after", after)):
        drift = measure_drift(sums[:, 1], sums[:, 2])
        low, high = interval(sums[:, [0, 2]], drift_of_sums)
        kl = float(sums[:, 0].sum() / sums[:, 2].sum())
        values = {"drift": drift.nat, "drift_low": drift.low, "drift_high": drift.high, "spread": drift.spread, "drift_limit": limit}
        rows.append({"case": recipe, "stage": stage, **values, "kl": kl, "kl_low": low, "kl_high": high})
    drift = measure_drift(after[:, 1] - before[:, 1], before[:, 2])
    pairs = np.stack([after[:, 0], before[:, 0]], axis=1)
    low, high = interval(pairs, drift_of_sums)  # a ratio of sums, as drift is
    ratio = {"kl_ratio": float(pairs[:, 0].sum() / pairs[:, 1].sum()), "kl_ratio_low": low, "kl_ratio_high": high}
    difference = {"drift": drift.nat, "drift_low": drift.low, "drift_high": drift.high}
    rows.append({"case": recipe, "stage": "difference", **difference, **ratio, "seconds": seconds})
    return rows


def toolkit(*arguments: str | Path) -> None:
    """Run a command of the toolkit in its own process."""
    subprocess.run([sys.executable, "-m", "toolkit.cli", *map(str, arguments)], check=True)


def main() -> None:
    """Train, export, measure and write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="the section to write; checkpoints and artifacts go beside it")
    parser.add_argument("--checkpoint", default="models/blip-mini-coco")
    parser.add_argument("--dataset", default="sample", help="images to measure on")
    parser.add_argument("--training", nargs="+", required=True, help="datasets to train on")
    parser.add_argument("--recipe", nargs="+", default=RECIPES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("options", nargs="*", help="further options of `toolkit finetune`, after --")
    arguments = parser.parse_args()
    checkpoint, folder = open_checkpoint(arguments.checkpoint), arguments.output.parent / "qat"
    folder.mkdir(parents=True, exist_ok=True)
    dataset = load_dataset(arguments.dataset)
    reference = HfCaptioner(checkpoint.directory, arguments.threads, tied=checkpoint.stored_model.tied)
    rows: list[Row] = []
    for recipe in arguments.recipe:
        name = Path(recipe).stem
        tuned, seconds = folder / f"{checkpoint.name}-for-{name}", None
        if not tuned.exists():
            training = [word for path in arguments.training for word in ("--dataset", path)]
            started = time.monotonic()
            options = [*training, "--output", tuned, "--threads", str(arguments.threads), *arguments.options]
            toolkit("finetune", arguments.checkpoint, "--recipe", recipe, *options)
            seconds = time.monotonic() - started
            (tuned / "seconds.json").write_text(json.dumps(seconds))
        seconds = seconds or json.loads((tuned / "seconds.json").read_text())
        sums = []
        for source in (arguments.checkpoint, tuned):
            artifact = folder / f"{Path(source).name}-{name}"
            if not artifact.exists():
                toolkit("export", source, "--recipe", recipe, "--output", folder, "--on-gate-failure", "write")
            sums.append(measured(artifact, reference, dataset.images, arguments.threads))
        limit = json.loads((artifact / "manifest.json").read_text())["recipe"]["drift_limit_nat"]
        rows += rows_of(name, limit, *sums, seconds)
    write_section(
        arguments.output,
        checkpoint=checkpoint.name,
        dataset=dataset.name,
        images=len(dataset.images),
        command="make quality",
        rows=rows,
        notes=[
            f"Trained on {', '.join(Path(path).name for path in arguments.training)}. Their held-out images chose the settings.",
            "The reference of all rows is the original checkpoint in FP32.",
        ],
    )


if __name__ == "__main__":
    try:
        main()
    except ToolkitError as error:
        sys.exit(f"Error: {error}")
