"""Compare answers with transformers for every setting of greedy and beam search: a part of `make parity`.

`python -m tests.parity.vqa prepare FOLDER` writes a tiny checkpoint for questions with a tied and an untied head, and FP32 artifacts of
both engines. `python -m tests.parity.vqa compare FOLDER` runs in an environment with any transformers, prints the number of compared
answers and of differences, and fails if there is a difference. The reference answers one question at a time: in a batch, transformers
lets the decoder attend to the padding of shorter questions. The questions have 1 to 30 words.
"""

import sys
from collections import Counter
from pathlib import Path

import transformers

import runtimes
from exporters.families.blip_reference import HfAnswerer, text_with_margins
from exporters.gate import gate
from exporters.gate.labelled_image import LabelledImage
from runtimes.artifact.generation import GenerationConfig
from tests.drawn import ask_about
from tests.parity.settings import search_settings
from toolkit.datasets import load_dataset

CHECKPOINTS = {"tiny-vqa": True, "tiny-vqa-untied": False}
"""Name → whether the head is tied."""
RECIPES = ("onnx-fp32", "pytorch-fp32")
IMAGES = 6
EOS = 3


def samples() -> list[LabelledImage]:
    """Return images with questions of 1 to 30 words."""
    return ask_about(list(load_dataset("sample").images[:IMAGES]))


def prepare(folder: Path) -> None:
    """Write checkpoints and artifacts. It needs the exporters, so it runs in the main environment."""
    from exporters.checkpoint.checkpoint import open_checkpoint
    from exporters.export import export
    from exporters.recipes import find_recipes
    from tests.checkpoints import untie
    from tests.tiny import write_tiny_vqa_checkpoint

    tied, untied = (folder / name for name in CHECKPOINTS)
    folder.mkdir(parents=True, exist_ok=True)
    if not tied.exists():
        write_tiny_vqa_checkpoint(tied)
    if not untied.exists():
        untie(tied, untied, seed=3)
    for checkpoint in (tied, untied):
        opened, recipes = open_checkpoint(str(checkpoint)), find_recipes(RECIPES, cuda=False)
        for path in export(opened, recipes, folder / "artifacts" / "vqa", samples()[:2], overwrite=True, on_gate_failure="write"):
            print(path)


def compare(folder: Path) -> int:
    """Compare all artifacts with their checkpoints; return the exit code."""
    total: Counter[str] = Counter()
    images = samples()
    paths, questions = [image.path for image in images], [str(image.question) for image in images]
    for name, tied in CHECKPOINTS.items():
        reference = HfAnswerer(folder / name, threads=1, tied=tied)
        for settings in ({"num_beams": 1}, {"num_beams": 3}, *search_settings(list(range(20, 29)), EOS)):
            config = GenerationConfig(**settings)
            expected = [text_with_margins(reference, image.path, image.question, config) for image in images]
            for recipe in RECIPES:
                with runtimes.load(folder / "artifacts" / "vqa" / f"{name}-{recipe}", task="vqa", device="cpu", threads=1) as answerer:
                    answers = answerer.answer(paths, questions, batch_size=4, generation_config=config)
                ids, margins = zip(*expected, strict=True)
                comparison = gate.compare([answer.token_ids for answer in answers], ids, margins)
                total.update({"answers": len(answers), "ties": comparison.ties, "differences": len(comparison.different)})
                if comparison.different:
                    print(f"  {name}, {recipe}, {settings}: {len(comparison.different)} different")
    print(f"transformers {transformers.__version__}: " + ", ".join(f"{count} {kind}" for kind, count in total.items()))
    return 1 if total["differences"] else 0


def main() -> int:
    action, folder = sys.argv[1:]
    if action == "compare":
        return compare(Path(folder))
    prepare(Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
