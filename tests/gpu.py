"""Check FP16 on a GPU: `python -m tests.gpu prepare FOLDER` on any machine, `python -m tests.gpu run FOLDER` on one with a GPU.

`prepare` exports the shipped model in FP16 and FP32, and records the token ids and log-probabilities of FP32 on the sample images. Less
than 60 MB travel, and they need only torch, numpy, Pillow and tokenizers. `run` takes less than 8 minutes. It compares captions and drift
(gate), measures time and memory, and limits the memory of torch so that a batch must be halved. Where transformers is installed, it also
exports on the GPU. Where onnxruntime has a CUDA provider, it checks the ONNX artifact as well.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import runtimes
from tests.paths import ROOT

MAX_BYTES = 60_000_000
"""Size of what travels to the machine."""
LIMIT_S = 8 * 60
RECIPES = {"pytorch-fp16": "torch", "onnx-fp16": "onnxruntime"}
"""Recipe → library that runs it."""
REQUIRED = "pytorch-fp16"
DRIFT_LIMIT = 0.01
"""In nat per token, as in the recipes."""
SAME_CAPTIONS = 0.9
"""Smallest share of captions that equal those of FP32."""
EXPECTED = "expected.json"


@dataclass(frozen=True)
class Finding:
    """One check."""

    name: str
    result: str
    passed: bool


def images() -> list[Path]:
    """Return the sample images."""
    return sorted((ROOT / "toolkit/sample").glob("*.jpg"))


def observed(captioner: Any) -> dict[str, Any]:
    """Return the token ids and the log-probability of one given caption per image."""
    texts = json.loads((ROOT / "toolkit/sample/captions.json").read_text())
    given = [next(iter(entry["captions"])) for entry in sorted(texts["images"], key=lambda entry: entry["file"])]
    captions = captioner.caption(images())
    scores = captioner.score(images(), captions=[[text] for text in given])
    tokens = [len(captioner.text_ids(text)) - 1 for text in given]
    return {"ids": [list(caption.token_ids) for caption in captions], "scores": [float(each[0]) for each in scores], "tokens": tokens}


def prepare(folder: Path, checkpoint: Path = ROOT / "models/blip-mini-coco") -> None:
    """Export the artifacts and record what FP32 computes on this machine's CPU."""
    export = [sys.executable, "-m", "toolkit.cli", "export", str(checkpoint), "--on-gate-failure", "write", "--overwrite"]
    names = ("onnx-fp32", *RECIPES)
    subprocess.run([*export, *(part for name in names for part in ("--recipe", name)), "--output", str(folder)], check=True, cwd=ROOT)
    with runtimes.load(folder / f"{checkpoint.name}-onnx-fp32", draft=False) as captioner:
        (folder / EXPECTED).write_text(json.dumps(observed(captioner)))
    for name in names:
        source = folder / f"{checkpoint.name}-{name}"
        if name in RECIPES:
            source.rename(folder / name)


def travelling_bytes(folder: Path) -> int:
    """Return the size of the required artifact and of what was recorded."""
    return sum(
        file.stat().st_size for part in (REQUIRED, EXPECTED) for file in [folder / part, *(folder / part).rglob("*")] if file.is_file()
    )


def gate(captioner: Any, expected: dict[str, Any]) -> Iterator[Finding]:
    """Compare captions and drift with those of FP32."""
    now = observed(captioner)
    same = float(np.mean([then == each for then, each in zip(expected["ids"], now["ids"], strict=True)]))
    drift = (sum(expected["scores"]) - sum(now["scores"])) / sum(expected["tokens"])
    yield Finding("same captions as FP32", f"{same:.0%}", same >= SAME_CAPTIONS)
    yield Finding("drift, nat/token", f"{drift:+.4f}", drift <= DRIFT_LIMIT)


def speed(captioner: Any) -> Iterator[Finding]:
    """Measure time per image for several batch sizes."""
    sources = images()
    for size in (1, 8, 21):
        captioner.caption(sources[:size], batch_size=size)
        begun = time.perf_counter()
        captioner.caption(sources, batch_size=size)
        yield Finding(f"images/s, batch {size}", f"{len(sources) / (time.perf_counter() - begun):.1f}", passed=True)


def halving(captioner: Any, device: str) -> Iterator[Finding]:
    """Limit the memory of torch to what a small batch needs: a large batch is halved, and its captions are the same."""
    import torch

    if device == "cpu":
        return
    sources = images()
    expected = captioner.caption(sources, batch_size=1)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    captioner.caption(sources[:4], batch_size=4)
    peak, total = torch.cuda.max_memory_allocated(), torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, 1.2 * peak / total))
    try:
        texts = [caption.text for caption in captioner.caption(sources * 3, batch_size=3 * len(sources))]
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    same = float(np.mean([text == caption.text for text, caption in zip(texts, expected * 3, strict=True)]))
    yield Finding(f"batch of {3 * len(sources)} in {1.2 * peak / 1e6:.0f} MB, same captions", f"{same:.0%}", same >= SAME_CAPTIONS)


def exported(folder: Path, device: str) -> Iterator[Finding]:
    """Export on this machine, where transformers is installed; the gate of the export runs on the device."""
    if importlib.util.find_spec("transformers") is None or device == "cpu":
        yield Finding("export on this machine", "not run: transformers is not installed, or there is no GPU", passed=True)
        return
    command = [sys.executable, "-m", "toolkit.cli", "export", str(ROOT / "models/blip-mini-coco"), "--recipe", REQUIRED]
    ended = subprocess.run(
        [*command, "--output", str(folder / "exported"), "--overwrite"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    yield Finding("export on this machine", (ended.stdout or ended.stderr).strip().splitlines()[-1], ended.returncode == 0)


def run(folder: Path, device: str) -> list[Finding]:
    """Check every artifact that can run here; see the module."""
    expected = json.loads((folder / EXPECTED).read_text())
    findings = list(exported(folder, device))
    for recipe, library in RECIPES.items():
        if importlib.util.find_spec(library) is None or not (folder / recipe).is_dir():
            findings.append(Finding(recipe, f"not run: no {library} or no artifact", passed=recipe != REQUIRED))
            continue
        checks: tuple[Callable[[Any], Iterator[Finding]], ...] = (
            lambda captioner: gate(captioner, expected),
            speed,
            *((lambda captioner: halving(captioner, device),) if library == "torch" else ()),
        )
        try:
            with runtimes.load(folder / recipe, device=device, draft=False) as captioner:
                findings += [Finding(f"{recipe}: {each.name}", each.result, each.passed) for check in checks for each in check(captioner)]
        except runtimes.ToolkitError as error:
            findings.append(Finding(recipe, str(error), passed=recipe != REQUIRED))
    return findings


def main() -> None:
    """Prepare, or run and print the findings; exit code 1 if one failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__)
    parser.add_argument("action", choices=["prepare", "run"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cuda", help="cpu tries the script without a GPU")
    options = parser.parse_args()
    begun = time.monotonic()
    if options.action == "prepare":
        prepare(options.folder)
        print(f"{travelling_bytes(options.folder) / 1e6:.1f} MB travel")
        sys.exit(travelling_bytes(options.folder) > MAX_BYTES)
    findings = run(options.folder, options.device)
    findings.append(Finding("time, s", f"{time.monotonic() - begun:.0f}", time.monotonic() - begun < LIMIT_S))
    for finding in findings:
        print(f"{'passed' if finding.passed else 'FAILED'}  {finding.name}: {finding.result}")
    sys.exit(not all(finding.passed for finding in findings))


if __name__ == "__main__":
    main()
