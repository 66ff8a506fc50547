"""Measure how recipes stand activation outliers, with and without SmoothQuant: section "stress" of the results on quality.

    python -m tests.quality.stress --output build/quality/stress.json

Each row is one artifact of one copy of the checkpoint (`tests.stress`). Its drift is relative to the FP32 artifact of the same copy, with
the captions of people teacher-forced. Runs are kept in a folder beside the output, so a second call measures only what is missing.
"""

import argparse
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from exporters.calibration.activations import Calibration
from exporters.calibration.smoothing import smoothed
from exporters.checkpoint.checkpoint import Checkpoint, open_checkpoint
from exporters.export import export
from exporters.gate.drift import measure_drift
from exporters.gate.intervals import Float64
from exporters.recipe import Recipe
from exporters.recipes import find_recipe
from runtimes.loading import load
from tests.paths import ROOT
from tests.quality.sections import write_section
from tests.stress import KINDS, write_stressed
from toolkit.datasets import Dataset, load_dataset

NOTES = (
    "channel: channels behind the LayerNorms of the encoder. gelu: neurons behind GELU. token: neurons behind GELU that are large for 1 %"
    " of the tokens. No scale passes through GELU, so SmoothQuant cures the first kind only.",
    "Drift is relative to FP32 of the same copy of the checkpoint.",
    "Where smoothing changes no layer, the artifacts with and without it are equal, and only the second has a row.",
    "Smoothing does not change the decoder. Rows of `onnx-int4` differ by up to 0.014 all the same: GPTQ rounds the decoder anew in each"
    " export, with captions that the model samples, and its drift differs by that much between exports.",
)
CASES = ("onnx-int8", "onnx-int4", "pytorch-int8")
SCALES = (10, 30, 100)
REFERENCE = "pytorch-fp32"
Run = tuple[str, int, str, bool]
"""Kind of outliers, scale (1: the unmodified checkpoint), recipe, and whether the recipe smooths as it is shipped or not at all."""


def without_smoothing(recipe: Recipe) -> Recipe:
    """Return a recipe that quantizes the weights of the checkpoint as they are."""
    return replace(recipe, components={name: replace(component, smooth=None) for name, component in recipe.components.items()})


def runs(kinds: Sequence[str], scales: Sequence[int], cases: Sequence[str]) -> list[Run]:
    """Return all runs, those of one copy of the checkpoint together, the unmodified checkpoint first."""
    copies = [("channel", 1), *itertools.product(kinds, scales)]
    return [(kind, scale, case, smoothed) for kind, scale in copies for case in cases for smoothed in (False, True)]


def measure(checkpoint: Path, dataset: Dataset, folder: Path, wanted: Sequence[Run], threads: int) -> dict[Run, list[float]]:
    """Return run → decrease of the log-probability of each image's captions relative to FP32, in nat; runs are kept in `folder`."""
    files = {run: folder / file_name(run) for run in wanted}
    for (kind, scale), group in itertools.groupby(wanted, key=lambda run: run[:2]):
        missing = [run for run in group if not files[run].is_file()]
        if not missing:
            continue
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            source = write_stressed(kind, checkpoint, Path(scratch) / "copy", scale) if scale > 1 else checkpoint
            opened, calibration = open_checkpoint(str(source)), Calibration()
            reference = _scores(opened, find_recipe(REFERENCE), dataset, calibration, threads)
            for run in missing:
                recipe, plain = find_recipe(run[2]), folder / file_name((*run[:3], False))
                if run[3] and plain.is_file() and not smoothed(opened, recipe, calibration, threads).smoothing.scales:
                    files[run].write_bytes(plain.read_bytes())  # no layer is smoothed, so the artifact is the same
                    continue
                scores = _scores(opened, recipe if run[3] else without_smoothing(recipe), dataset, calibration, threads)
                files[run].write_text(json.dumps((reference - scores).tolist()))
                print(*run, file=sys.stderr, flush=True)
    return {run: json.loads(file.read_bytes()) for run, file in files.items()}


def file_name(run: Run) -> str:
    """Return the name of a run's file."""
    return f"{'-'.join(map(str, run[:3]))}-{'smoothed' if run[3] else 'plain'}.json"


def _scores(checkpoint: Checkpoint, recipe: Recipe, dataset: Dataset, calibration: Calibration, threads: int) -> Float64:
    """Export a recipe and return the log-probability of each image's captions, f64[images]."""
    gate = load_dataset("sample", limit=1).images
    with tempfile.TemporaryDirectory() as output:
        (path,) = export(checkpoint, [recipe], Path(output), gate, calibration=calibration, on_gate_failure="write")
        captioner = load(path, device="cpu", threads=threads)
        scores = captioner.score([image.path for image in dataset.images], captions=[image.texts for image in dataset.images])
    return np.array([row.sum(dtype=np.float64) for row in scores])


def tokens_of(checkpoint: Checkpoint, dataset: Dataset) -> Float64:
    """Return the number of tokens of each image's captions, with the end token, f64[images]."""
    tokenizer, rules = Tokenizer.from_str(checkpoint.tokenizer_json.decode()), checkpoint.tokenizer
    added = rules.drop_left + rules.drop_right - 1
    longest = checkpoint.model.max_positions - 1
    counts = [[min(len(tokenizer.encode(caption).ids) - added, longest) for caption in image.texts] for image in dataset.images]
    return np.array([sum(count) for count in counts], dtype=np.float64)


def rows_of(decreases: Mapping[Run, list[float]], tokens: Float64) -> list[dict[str, object]]:
    """Return the rows of the section.

    `over_unmodified` is the paired drift minus that of the same case, equally smoothed, on the unmodified checkpoint;
    `smoothed_minus_plain` is that minus the drift of the same case without smoothing.
    """
    rows = []
    for run, values in decreases.items():
        kind, scale, case, smoothed = run
        drift = measure_drift(np.array(values), tokens)
        row: dict[str, object] = {"case": case, "kind": kind, "scale": scale, "smoothed": smoothed, "drift": drift.nat}
        row |= {"drift_low": drift.low, "drift_high": drift.high, "spread": drift.spread, "drift_limit": find_recipe(case).drift_limit_nat}
        for key, other in (("over_unmodified", ("channel", 1, case, smoothed)), ("smoothed_minus_plain", (kind, scale, case, False))):
            if other != run and other in decreases:
                change = measure_drift(np.subtract(values, decreases[other]), tokens)
                row |= {key: change.nat, f"{key}_low": change.low, f"{key}_high": change.high}
        rows.append({key: round(value, 6) if isinstance(value, float) else value for key, value in row.items()})
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.quality.stress", description="Measure recipes on copies with outliers.")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "models" / "blip-mini-coco")
    parser.add_argument("--dataset", default="sample", help="Name or captions.json, as for toolkit bench.")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--scales", nargs="+", type=int, default=SCALES)
    parser.add_argument("--cases", nargs="+", default=CASES)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # torch's exporter warns about every non-standard operator
    folder = options.output.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    dataset = load_dataset(options.dataset)
    wanted = runs(options.kinds, options.scales, options.cases)
    decreases = measure(options.checkpoint, dataset, folder, wanted, options.threads)
    write_section(
        options.output,
        checkpoint=options.checkpoint.name,
        dataset=dataset.name,
        images=len(dataset.images),
        command="make quality",
        rows=rows_of(decreases, tokens_of(open_checkpoint(str(options.checkpoint)), dataset)),
        notes=NOTES,
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
