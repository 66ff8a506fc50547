"""Parity with another transformers than the exporters need: `python -m tests.parity.latest CHECKPOINT ARTIFACT...`.

Greedy and beam 3, with and without prompt, on the shipped images; prints equal and tied captions, and fails on a difference.
"""

import sys
from pathlib import Path

import transformers

import runtimes
from exporters.families.blip_reference import HfCaptioner, greedy_with_margins
from exporters.gate.gate import compare
from toolkit.datasets import load_dataset


def main(checkpoint: str, artifacts: list[str]) -> int:
    images = [image.path for image in load_dataset("sample").images]
    reference = HfCaptioner(Path(checkpoint), threads=2)
    captioners = {path: runtimes.load(path, device="cpu") for path in artifacts}
    failed = 0
    for prompt in (None, "a picture of"):
        greedy = [greedy_with_margins(reference, path, prompt) for path in images]
        references = {1: ([ids for ids, _ in greedy], [margins for _, margins in greedy])}
        num_beams = [list(caption.token_ids) for caption in reference.caption(images, prompt=prompt, num_beams=3)]
        references[3] = (num_beams, [[] for _ in num_beams])  # a beam search has no margin per token: nothing counts as a tie
        for width, (ids, margins) in references.items():
            for path, captioner in captioners.items():
                actual = [caption.token_ids for caption in captioner.caption(images, prompt=prompt, num_beams=width)]
                comparison = compare(actual, ids, margins)
                failed += len(comparison.different)
                print(
                    f"transformers {transformers.__version__}, {Path(path).name}, beams {width}, prompt {prompt!r}: "
                    f"{comparison.equal} of {len(images)} equal, {comparison.ties} ties, {len(comparison.different)} different"
                )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
