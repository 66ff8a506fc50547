"""Measure how recipes stand activation outliers, with and without SmoothQuant: section "stress" of the results on quality.

    python -m tests.quality.stress --output build/quality/stress.json

Each row is one artifact of one copy of the checkpoint (`tests.stress`). Its drift is relative to the FP32 artifact of the same copy, with
the captions of people teacher-forced. Runs are kept in a folder beside the output, so a second call measures only what is missing.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from exporters.calibration.activations import Calibration
from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.export import export
from exporters.gate.gate import drift_of_sums
from exporters.gate.intervals import interval
from exporters.recipes import Recipe, find_recipe
from runtimes.loading import load
from tests.paths import ROOT
from tests.stress import KINDS, write_stressed
from toolkit.datasets import Dataset, load_dataset

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
    """Return run → decrease of the log-probability of each image's captions, in nat; see `main`."""
    decreases: dict[Run, list[float]] = {}
    for (kind, scale), group in itertools.groupby(wanted, key=lambda run: run[:2]):
        files = {run: folder / f"{kind}-{scale}-{run[2]}-{'smoothed' if run[3] else 'plain'}.json" for run in group}
        calibration, source = Calibration(), checkpoint
        if any(not file.is_file() for file in files.values()) and scale > 1:
            source = folder / f"{kind}-{scale}"
            if not source.is_dir():
                write_stressed(kind, checkpoint, source, scale)
        reference = None
        for run, file in files.items():
            if not file.is_file():
                if reference is None:
                    reference = _scores(source, find_recipe(REFERENCE), dataset, folder / f"{kind}-{scale}-fp32", calibration, threads)
                recipe = find_recipe(run[2]) if run[3] else without_smoothing(find_recipe(run[2]))
                scores = _scores(source, recipe, dataset, file.with_suffix(""), calibration, threads)
                file.write_text(json.dumps((reference - scores).tolist()))
                print(*run, file=sys.stderr, flush=True)
            decreases[run] = json.loads(file.read_bytes())
    return decreases


def _scores(checkpoint: Path, recipe: Recipe, dataset: Dataset, output: Path, calibration: Calibration, threads: int) -> np.ndarray:
    """Export a recipe, if that was not done, and return the log-probability of each image's captions, f64[images]."""
    source = open_checkpoint(str(checkpoint))
    path = output / f"{source.name}-{recipe.name}"
    if not path.is_dir():
        gate = load_dataset("sample", limit=1).images
        list(export(source, [recipe], output, gate, calibration=calibration, on_gate_failure="write"))
    captioner = load(path, device="cpu", threads=threads)
    scores = captioner.score([image.path for image in dataset.images], captions=[image.captions for image in dataset.images])
    return np.array([row.sum(dtype=np.float64) for row in scores])


def rows_of(decreases: dict[Run, list[float]], tokens: Sequence[int]) -> list[dict[str, object]]:
    """Return the rows of the section. `over_unmodified` is the drift minus that of the same case, equally smoothed, without outliers."""
    rows = []
    for run, values in decreases.items():
        kind, scale, case, smoothed = run
        sums = np.array([values, tokens], dtype=np.float64).T
        low, high = interval(sums, drift_of_sums)
        row: dict[str, object] = {"case": case, "kind": kind, "scale": scale, "smoothed": smoothed}
        row |= {"drift": _drift(sums), "drift_low": low, "drift_high": high, "spread": float(np.std(sums[:, 0] / sums[:, 1], ddof=1))}
        row["drift_limit"] = find_recipe(case).drift_limit_nat
        for key, other in (("over_unmodified", ("channel", 1, case, smoothed)), ("smoothed_minus_plain", (kind, scale, case, False))):
            if other != run and other in decreases:
                pairs = np.array([np.subtract(values, decreases[other]), tokens], dtype=np.float64).T
                row |= {key: _drift(pairs), **dict(zip((f"{key}_low", f"{key}_high"), interval(pairs, drift_of_sums), strict=True))}
        rows.append({key: round(value, 6) if isinstance(value, float) else value for key, value in row.items()})
    return rows


def _drift(sums: np.ndarray) -> float:
    return float(drift_of_sums(sums.sum(axis=0, keepdims=True))[0])


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
    folder = options.output.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    dataset = load_dataset(options.dataset)
    decreases = measure(options.checkpoint, dataset, folder, runs(options.kinds, options.scales, options.cases), options.threads)
    captioner = load(next(folder.glob(f"*/*-{REFERENCE}")), device="cpu", threads=1)
    tokens = [sum(len(captioner.caption_ids(caption)) - 1 for caption in image.captions) for image in dataset.images]
    print(json.dumps(rows_of(decreases, tokens), indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
