"""Write the section `matching` of the results on quality: text-to-image retrieval of a matcher in every recipe.

python -m tests.quality.matching --checkpoint CHECKPOINT --dataset CAPTIONS --output build/quality/matching.json RECIPE...
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import runtimes
from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.export import export
from exporters.gate.intervals import interval
from exporters.gate.matching import all_captions, first_captions
from exporters.gate.retrieval import ranks, recall
from exporters.recipes import find_recipes
from runtimes.artifact.folder import open_artifact
from runtimes.decoding.session import Float32
from tests.quality.sections import Row, write_section
from toolkit.datasets import load_dataset

CANDIDATES = 12
"""Images that the matching head ranks again, the best ones by similarity."""
NOTES = (
    "R@k: share of captions whose image is among the k best of all, by the cosine of the embeddings, with a 95 % interval over images.",
    f"R@1 with head: the matching head ranks the {CANDIDATES} best images again, for the first caption of each image.",
    "Same best image: share of captions with FP32's best image. Change: mean difference of a score from FP32's.",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="+")
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    checkpoint, images = open_checkpoint(arguments.checkpoint), load_dataset(arguments.dataset)
    recipes = find_recipes(["onnx-fp32", *arguments.recipes], cuda=False)
    paths = [image.path for image in images.images]
    (captions, own), (firsts, first_own) = all_captions(images.images), first_captions(images.images)
    rows: list[Row] = []
    expected: tuple[Float32, NDArray[np.float64]] | None = None
    with tempfile.TemporaryDirectory() as folder:
        for path in export(checkpoint, recipes, Path(folder), load_dataset("sample").images, on_gate_failure="write"):
            artifact = open_artifact(path)
            with runtimes.load(path, task="matching", device="cpu") as matcher:
                similarities = matcher.similarity(paths, captions)
                reranked = rerank(matcher, paths, firsts, similarities[:, [captions.index(text) for text in firsts]])
            expected = expected or (similarities, reranked)
            text_ranks = ranks(similarities, own)
            low, high = interval(np.array([(text_ranks[np.array(own) == image] < 1).mean() for image in sorted(set(own))]))
            both = np.isfinite(reranked) & np.isfinite(expected[1])
            rows.append(
                {
                    "case": artifact.manifest.recipe["name"],
                    "recall_1": recall(text_ranks, 1),
                    "recall_1_low": low,
                    "recall_1_high": high,
                    "recall_5": recall(text_ranks, 5),
                    "recall_1_head": recall(ranks(reranked, first_own), 1),
                    "same_best": float((similarities.argmax(axis=0) == expected[0].argmax(axis=0)).mean()),
                    "similarity_change": float(np.abs(similarities - expected[0]).mean()),
                    "probability_change": float(np.abs(reranked[both] - expected[1][both]).mean()),
                    "gate": artifact.manifest.gate["passed"],
                    "bytes": artifact.total_bytes,
                }
            )
    command = f"python -m tests.quality.matching --checkpoint {checkpoint.name} --dataset {images.name} {' '.join(arguments.recipes)}"
    write_section(
        arguments.output,
        checkpoint=checkpoint.name,
        dataset=images.name,
        images=len(paths),
        command=command,
        rows=rows,
        notes=NOTES,
    )


def rerank(matcher: runtimes.Matcher, paths: list[Path], texts: list[str], similarities: Float32) -> NDArray[np.float64]:
    """Return probabilities f64[I,T] of the best `CANDIDATES` images of each text; those of the others are minus infinity."""
    best = np.argsort(-similarities, axis=0, kind="stable")[:CANDIDATES]
    probabilities = np.full(similarities.shape, -np.inf)
    for image, path in enumerate(paths):
        if chosen := np.flatnonzero((best == image).any(axis=0)).tolist():
            probabilities[image, chosen] = matcher.match(path, [texts[index] for index in chosen])[0]
    return probabilities


if __name__ == "__main__":
    main()
