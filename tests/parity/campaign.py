"""Compare artifacts with transformers for every decoding setting: `make parity`.

`python -m tests.parity.campaign prepare FOLDER` writes the tiny and the shipped checkpoint, each with a tied and an untied head, and their
FP32 artifacts for both engines. `python -m tests.parity.campaign compare FOLDER [NAME...]` runs in an environment with any transformers,
prints the number of compared captions and of differences, and fails if there is a difference.

The untied head of the shipped checkpoint is its word embeddings with noise. A caption is compared by its token ids, a step of sampling by
the greatest difference of a probability. At a tie, where transformers' two best tokens differ by less than rounding, both count as equal.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

import runtimes
from exporters.families.blip_reference import MAX_MARGIN_NAT, HfCaptioner
from exporters.gate.gate import compare
from runtimes.artifact.generation import GenerationConfig
from runtimes.decoding.processors import process, processors_of
from runtimes.tasks.captioner import Captioner
from tests.parity.settings import SAMPLING_SETTINGS, Settings, search_settings
from tests.paths import ROOT
from toolkit.datasets import load_dataset

CHECKPOINTS = {"tiny": True, "tiny-untied": False, "mini": True, "mini-untied": False}
"""Name → whether the head is tied."""
RECIPES = ("onnx-fp32", "pytorch-fp32")
PROMPTS = (None, "a picture of")
IMAGES = 3
PROBABILITY_TOLERANCE = 1e-5


def prepare(folder: Path) -> None:
    """Write checkpoints and artifacts. It needs the exporters, so it runs in the main environment."""
    from exporters.checkpoint.checkpoint import open_checkpoint
    from exporters.export import export
    from exporters.recipes import find_recipes
    from tests.checkpoints import untie, write_random_checkpoint

    folder.mkdir(parents=True, exist_ok=True)
    tiny = folder / "tiny"
    if not tiny.exists():
        write_random_checkpoint(tiny, "tiny", seed=11)
    if not (folder / "mini").exists():
        (folder / "mini").symlink_to(ROOT / "models" / "blip-mini-coco")
    images = load_dataset("sample").images[:4]
    for name, tied in CHECKPOINTS.items():
        if not tied and not (folder / name).exists():
            untie(folder / name.removesuffix("-untied"), folder / name, seed=3)
        checkpoint = open_checkpoint(str(folder / name))
        if checkpoint.model.tied != tied:
            raise ValueError(f"{name}: its head is not as it should be")
        recipes = find_recipes(RECIPES, cuda=False)
        for path in export(checkpoint, recipes, folder / "artifacts" / name, images, overwrite=True, on_gate_failure="write"):
            print(path)


def main(folder: Path, names: Sequence[str] = ()) -> int:
    """Compare the artifacts of all checkpoints, or of the named ones; return the exit code."""
    images = [image.path for image in load_dataset("sample").images[:IMAGES]]
    print(f"transformers {transformers.__version__}, torch {torch.__version__}, {IMAGES} images")
    total: Counter[str] = Counter()
    for name in names or CHECKPOINTS:
        tied = CHECKPOINTS[name]
        reference = HfCaptioner(folder / name, threads=1, tied=tied)
        captioners = {recipe: _load(folder / "artifacts" / name, recipe) for recipe in RECIPES}
        counts = Counter({"settings": 0, "captions": 0, "ties": 0, "differences": 0, "steps": 0})
        for settings in _settings(reference, images):
            for prompt in PROMPTS:
                comparison = _captions if not settings.get("do_sample") else _distributions
                for result in comparison(reference, captioners, images, prompt, settings):
                    counts.update(result)
                    if result["differences"]:
                        print(f"  {name}, {settings}, prompt {prompt!r}: {result['differences']} different")
            counts["settings"] += 1
        print(f"{name}: " + ", ".join(f"{count} {kind}" for kind, count in counts.items()), flush=True)
        total.update(counts)
    print(
        f"all: {total['captions']} captions, {total['steps']} steps of sampling, {total['ties']} ties, {total['differences']} differences"
    )
    return 1 if total["differences"] else 0


def _load(folder: Path, recipe: str) -> Captioner:
    (path,) = folder.glob(f"*-{recipe}")
    return runtimes.load(path, device="cpu", threads=1)


def _settings(reference: HfCaptioner, images: Sequence[Path]) -> Iterator[Settings]:
    """Yield all settings, with bad words and suppressed tokens that the model generates."""
    eos = reference.model.config.text_config.sep_token_id
    usual = Counter(token for caption in reference.caption(images) for token in caption.token_ids[1:] if token != eos)
    words = [token for token, _ in usual.most_common(9)]
    words += [token for token in range(4, 40) if token not in words and token != eos][: 9 - len(words)]
    yield {"num_beams": 1}
    yield {"num_beams": 4, "length_penalty": 1.5, "min_length": 7}
    yield from search_settings(words, eos)
    for settings in SAMPLING_SETTINGS:
        yield {"do_sample": True, **settings}


def _captions(
    reference: HfCaptioner, captioners: dict[str, Captioner], images: Sequence[Path], prompt: str | None, settings: Settings
) -> Iterator[Counter[str]]:
    config = GenerationConfig(**settings)
    greedy = config.num_beams == 1
    output = reference.output(torch.cat([reference._pixels(image) for image in images]), [prompt] * len(images), config, scores=greedy)
    expected = [reference._trim(ids) for ids in output.sequences.tolist()]
    margins: list[list[float]] = [[] for _ in images]
    if greedy:
        start = output.sequences.shape[1] - len(output.scores)
        best = torch.stack([torch.topk(scores, 2).values for scores in output.scores])  # f32[steps, images, 2]
        margins = [
            [min(float(pair[0] - pair[1]), MAX_MARGIN_NAT) for pair in best[: len(ids) - start, row]] for row, ids in enumerate(expected)
        ]
    for captioner in captioners.values():
        own = [caption.token_ids for caption in captioner.caption(images, prompt=prompt, batch_size=3, **settings)]
        comparison = compare(own, expected, margins)
        yield Counter({"captions": len(images), "ties": comparison.ties, "differences": len(comparison.different)})


def _distributions(
    reference: HfCaptioner, captioners: dict[str, Captioner], images: Sequence[Path], prompt: str | None, settings: Settings
) -> Iterator[Counter[str]]:
    """Sample with transformers, and compare the distribution of each of its steps."""
    config = GenerationConfig(**settings)
    eos = reference.model.config.text_config.sep_token_id
    torch.manual_seed(0)
    output = reference.output(torch.cat([reference._pixels(image) for image in images]), [prompt] * len(images), config, scores=True)
    start = output.sequences.shape[1] - len(output.scores)
    processors = processors_of(config, eos, start)
    for row, image in enumerate(images):
        ids = reference._trim(output.sequences[row].tolist())
        for captioner in captioners.values():
            session = captioner.stepwise_session
            state = session.encode({"pixels": captioner._pixels(image)[None]})
            logits, _ = session.step(np.array([ids[:-1]]), state, np.arange(start - 1, len(ids) - 1))
            different = 0
            for step in range(len(ids) - start):
                scores = logits[:, step].copy()
                process(processors, [ids[: start + step]], scores)
                difference = _softmax(scores) - _softmax(output.scores[step][row : row + 1].numpy())
                different += bool(np.abs(difference).max() > PROBABILITY_TOLERANCE)
            yield Counter({"steps": len(ids) - start, "differences": different})


def _softmax(scores: NDArray[Any]) -> NDArray[np.float64]:
    exponentials = np.exp(scores.astype(np.float64) - scores.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


if __name__ == "__main__":
    action, folder, *names = sys.argv[1:]
    sys.exit(prepare(Path(folder)) if action == "prepare" else main(Path(folder), names))
