"""Compare scores of matchers with transformers: a part of `make parity`.

`python -m tests.parity.matching prepare FOLDER [CHECKPOINT...]` exports the tiny random matcher, and other matchers, to FP32 artifacts of
both engines. `python -m tests.parity.matching compare FOLDER` runs in an environment with any transformers, prints the largest differences
of probabilities and similarities, and fails if one is above the tolerance. The reference is one call of transformers' model per pair.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

import runtimes
from exporters.families.hf_text_model import pillow_processor
from exporters.families.tokenizer import load_tokenizer
from runtimes.images.reading import read_image
from toolkit.datasets import load_dataset

RECIPES = ("onnx-fp32", "pytorch-fp32")
IMAGES = 5
TOLERANCE = 1e-4


def prepare(folder: Path, checkpoints: Sequence[str]) -> None:
    """Write the tiny checkpoint and the artifacts. It needs the exporters, so it runs in the main environment."""
    from exporters.checkpoint.checkpoint import open_checkpoint
    from exporters.export import export
    from exporters.recipes import find_recipes
    from tests.tiny import write_tiny_matcher

    matchers = folder / "matchers"
    matchers.mkdir(parents=True, exist_ok=True)
    if not (matchers / "tiny-matcher").exists():
        write_tiny_matcher(matchers / "tiny-matcher")
    for checkpoint in map(Path, checkpoints):
        if not (matchers / checkpoint.name).exists():
            (matchers / checkpoint.name).symlink_to(checkpoint.resolve())
    for checkpoint in sorted(matchers.iterdir()):
        opened, recipes = open_checkpoint(str(checkpoint)), find_recipes(RECIPES, cuda=False)
        for path in export(opened, recipes, folder / "artifacts" / "matchers", load_dataset("sample").images[:4], overwrite=True):
            print(path)


def compare(folder: Path) -> int:
    """Compare all artifacts with their checkpoints; return the exit code."""
    images = load_dataset("sample").images[:IMAGES]
    paths = [image.path for image in images]
    texts = [caption for image in images for caption in image.texts[:2]]
    failed = 0
    for checkpoint in sorted((folder / "matchers").iterdir()):
        expected = {head: reference(checkpoint, paths, texts, use_itm_head=head) for head in (True, False)}
        for recipe in RECIPES:
            with runtimes.load(folder / "artifacts" / "matchers" / f"{checkpoint.name}-{recipe}", task="matching", device="cpu") as matcher:
                scores = {True: matcher.match(paths, texts, batch_size=2), False: matcher.similarity(paths, texts)}
            probability, similarity = (float(np.abs(scores[head] - expected[head]).max()) for head in (True, False))
            failed += not max(probability, similarity) <= TOLERANCE
            print(
                f"transformers {transformers.__version__}, {checkpoint.name}, {recipe}: {len(paths)} images, {len(texts)} texts, "
                f"largest difference of a probability {probability:.1e}, of a similarity {similarity:.1e}"
            )
    return 1 if failed else 0


@torch.inference_mode()
def reference(checkpoint: Path, paths: Sequence[Path], texts: Sequence[str], *, use_itm_head: bool) -> NDArray[np.float64]:
    """Return transformers' scores f64[I,T] of each image and text, one call of the model per pair: with the head, probabilities."""
    model = transformers.BlipForImageTextRetrieval.from_pretrained(checkpoint, dtype=torch.float32).eval()
    processor, tokenizer = pillow_processor().from_pretrained(checkpoint), load_tokenizer(checkpoint)
    tokens = [tokenizer(text, return_tensors="pt", return_token_type_ids=False) for text in texts]
    rows = []
    for path in paths:
        pixels = processor(read_image(path), return_tensors="pt").pixel_values
        scores = [model(pixel_values=pixels, **text, use_itm_head=use_itm_head).itm_score for text in tokens]
        rows.append([float(score.softmax(-1)[0, 1] if use_itm_head else score) for score in scores])
    return np.array(rows)


def main() -> int:
    action, folder, *checkpoints = sys.argv[1:]
    if action == "compare":
        return compare(Path(folder))
    prepare(Path(folder), checkpoints)
    return 0


if __name__ == "__main__":
    sys.exit(main())
