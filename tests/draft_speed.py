"""Measure greedy search with drafts against greedy search without them, interleaved for each image.

    python -m tests.draft_speed ARTIFACT... --images DIR

Each image is encoded once. Then its caption is decoded without and with drafts in turn, `--rounds` times. The table has for each artifact:
the captions that are the same, tokens per step, milliseconds of decoding per image without drafts, and the ratio of the times: the median
over rounds, with the least and the largest. "end to end" adds the time of the encoder to both sides.
"""

import argparse
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import numpy as np

import runtimes
from exporters.drafts.measure import caption_all, measure_step_costs, measure_tolerance
from exporters.drafts.predictions import FOLDS, make_predictions
from exporters.drafts.sources import calibration_images, read_texts
from runtimes.decoding.drafts.drafter import Drafter
from runtimes.decoding.search import generate
from runtimes.images.reading import preprocess, read_image
from runtimes.tasks.captioner import Captioner
from toolkit.image_paths import in_folder

COLUMNS = (
    "artifact",
    "images",
    "same captions",
    "tokens/step",
    "steps with drafts",
    "decode ms",
    "decode ratio",
    "end to end",
    "costs",
    "tolerance",
)


def main() -> None:
    """Print one line per artifact."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifacts", nargs="+", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=83)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--tokens", type=int, help="force this many tokens per caption")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--cpu-time", action="store_true", help="measure CPU time, for a machine with other load; with --threads 1")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--learn", action="store_true", help="learn from the captions, in order of the images; one round only")
    source.add_argument("--accepting", action="store_true", help="make the table from the captions of the same images")
    source.add_argument("--shuffled", type=Path, help="make the table from the captions of this file with their words shuffled")
    options = parser.parse_args()
    print("| " + " | ".join(COLUMNS) + " |")
    print("|" + "---|" * len(COLUMNS))
    for artifact in options.artifacts:
        print("| " + " | ".join(measure(artifact, in_folder(options.images)[: options.limit], options)) + " |", flush=True)


def measure(artifact: Path, images: Sequence[Path], options: argparse.Namespace) -> list[str]:
    """Return the cells of one artifact."""
    captioner = runtimes.load(artifact, threads=options.threads, draft=False)
    decoder = Decoder(captioner, options.tokens, process_time if options.cpu_time else perf_counter)
    drafter = CountingDrafter(make_drafter(artifact, captioner, images, options))
    for image in images[:3]:
        decoder.caption(decoder.encode(image)[0], None)
    plain_s, drafted_s, encode_s = ([0.0] * options.rounds for _ in range(3))
    same = tokens = steps = 0
    for image in images:
        state, seconds = decoder.encode(image)
        for round_ in range(options.rounds):
            order = (None, drafter) if round_ % 2 else (drafter, None)
            captions = {each: decoder.caption(state, each) for each in order}
            plain_s[round_] += captions[None].seconds
            drafted_s[round_] += captions[drafter].seconds
            encode_s[round_] += seconds
        same += captions[None].ids == captions[drafter].ids
        tokens, steps = tokens + captions[drafter].tokens, steps + captions[drafter].steps
    return [
        artifact.name,
        str(len(images)),
        str(same),
        f"{tokens / steps:.2f}",
        f"{drafter.drafted / drafter.asked:.1%}",
        f"{1e3 * median(plain_s) / len(images):.1f}",
        spread(drafted_s, plain_s),
        spread(np.add(encode_s, drafted_s).tolist(), np.add(encode_s, plain_s).tolist()),
        "/".join(f"{cost:g}" for cost in drafter.costs),
        f"{drafter.tolerance:g}",
    ]


class CountingDrafter:
    """Counts how many of the proposed drafts have tokens."""

    def __init__(self, drafter: Drafter) -> None:
        self._drafter, self.asked, self.drafted = drafter, 0, 0
        self.costs, self.tolerance = drafter.step_costs, drafter.tolerance

    def propose(self, ids: Sequence[int], limit: int) -> list[int]:
        draft = self._drafter.propose(ids, limit)
        self.asked, self.drafted = self.asked + 1, self.drafted + bool(draft)
        return draft

    def learn(self, ids: Sequence[int], start: int) -> None:
        self._drafter.learn(ids, start)


def make_drafter(artifact: Path, captioner: Captioner, images: Sequence[Path], options: argparse.Namespace) -> Drafter:
    """Return the artifact's drafter, or one with another table and step costs that are measured here."""
    if not (options.learn or options.accepting or options.shuffled):
        drafter = runtimes.load(artifact, threads=options.threads, draft=True).drafter
        assert drafter is not None
        return drafter
    decoder, eos_id = (
        Decoder(captioner, options.tokens, process_time if options.cpu_time else perf_counter),
        captioner.manifest.tokenizer.eos_id,
    )
    texts = []
    if options.accepting:  # each caption is in every fold, so that the cross-validation finds the table reliable
        texts = [text for image in images for text in FOLDS * [list(decoder.caption(decoder.encode(image)[0], None).ids)]]
    if options.shuffled:
        words = [text.split() for text in read_texts(options.shuffled)]
        every = [word for text in words for word in text]
        random.Random(0).shuffle(every)
        shuffled = iter(every)
        texts = [captioner.text_ids(" ".join(next(shuffled) for _ in text)) for text in words]
    costs = measure_step_costs(captioner, captioner.text_ids("a man on a street with a dog"))
    config = replace(captioner.manifest.defaults.deterministic(), num_beams=1)
    known = calibration_images()[:12]
    tolerance = measure_tolerance(captioner, zip(known, caption_all(captioner, known, config).token_ids, strict=True))
    return Drafter(make_predictions(texts, eos_id), costs, eos_id, tolerance=tolerance, learning=options.learn)


class Decoded:
    """One caption: its ids, the seconds of decoding, and the numbers of generated tokens and steps."""

    def __init__(self, ids: tuple[int, ...], seconds: float, phases: Counter[str]) -> None:
        self.ids, self.seconds = ids, seconds
        self.tokens, self.steps = phases["first_token"] + phases["token"], phases["step"]


class Decoder:
    """Encodes an image once, and decodes its caption several times."""

    def __init__(self, captioner: Captioner, tokens: int | None, clock: Callable[[], float]) -> None:
        self._captioner, self._spec, self._clock = captioner, captioner.manifest.tokenizer, clock
        config = replace(captioner.manifest.defaults.deterministic(), num_beams=1)
        self._prompt = np.array([captioner.tokenizer.prompt_ids(None)], np.int64)
        length = self._prompt.shape[1] + (tokens or 0)
        self._config = replace(config, min_length=length, max_length=length, max_new_tokens=None) if tokens else config

    def encode(self, image: Path) -> tuple[object, float]:
        pixels = preprocess(read_image(image), self._captioner.manifest.image)[None]
        started = self._clock()
        return self._captioner.stepwise_session.encode({"pixels": pixels}), self._clock() - started

    def caption(self, state: object, drafter: CountingDrafter | None) -> Decoded:
        phases: Counter[str] = Counter()
        started = self._clock()
        (hypothesis,) = generate(
            self._captioner.stepwise_session,
            state,  # no engine of this project changes a state, so it can be decoded again
            self._prompt,
            self._spec,
            self._config,
            lambda phase, seconds: phases.update([phase]),
            drafter=drafter,  # type: ignore[arg-type]
        )
        return Decoded(hypothesis.token_ids, self._clock() - started, phases)


def spread(numerators: Sequence[float], denominators: Sequence[float]) -> str:
    """Format ratios as their median with the least and the largest."""
    ratios = [a / b for a, b in zip(numerators, denominators, strict=True)]
    return f"{median(ratios):.3f}x [{min(ratios):.3f}, {max(ratios):.3f}]"


if __name__ == "__main__":
    main()
