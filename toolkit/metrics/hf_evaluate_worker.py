"""Run HF `evaluate`'s "bleu" script in this process (a worker of `runtimes.workers`)."""

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from runtimes.errors import UnavailableError
from runtimes.workers.child import Send, serve

REVISION = "40c118bb2e381823f1072324b22cea3d7506b73b"
"""Commit of the space evaluate-metric/bleu whose script runs: what is pushed there later does not run here."""

_TRUE = {"1", "ON", "YES", "TRUE"}
"""What the Hugging Face libraries take for yes."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One image's words; without a hypothesis the script is loaded and nothing is counted."""

    source: str
    """Name on the hub, or absolute path of a folder that holds a script of the same name."""
    hypothesis: tuple[str, ...] = ()
    references: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the script computed."""

    precisions: tuple[float, ...]
    """Of 1..4-grams."""
    words: int
    """Length of the hypothesis."""


@cache
def load(source: str) -> Any:  # noqa: ANN401 evaluate ships no types
    """Load the script: from the hub at `REVISION`, from its cache, or from a folder.

    Raises:
        FileNotFoundError: no network may be used, and the cache does not have it.
    """
    if any(os.environ.get(name, "").upper() in _TRUE for name in ("HF_HUB_OFFLINE", "HF_EVALUATE_OFFLINE")):
        os.environ["HF_EVALUATE_OFFLINE"] = "1"  # the only one that evaluate heeds
        if not Path(source).is_dir() and not cached(source).is_dir():  # known before an import that takes seconds
            raise FileNotFoundError(f"offline, and no script in {cached(source)}")
    os.environ["HF_UPDATE_DOWNLOAD_COUNTS"] = "0"
    import evaluate

    try:
        return evaluate.load(source, module_type="metric", revision=REVISION, keep_in_memory=True)
    except FileNotFoundError:  # names a folder of ours that nobody asked for
        raise FileNotFoundError("neither the Hugging Face hub nor the cache gave its script") from None


def cached(source: str) -> Path:
    """Say where `evaluate` keeps a metric's script once it has fetched it."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    modules = os.environ.get("HF_MODULES_CACHE") or Path(home, "modules")
    return Path(modules, "evaluate_modules", "metrics", f"evaluate-metric--{source}").expanduser()


def run(question: Question, send: Send) -> Answer:
    """Count one image's n-grams; without words, only load the script."""
    try:
        metric = load(question.source)
        if not question.hypothesis:
            return Answer(precisions=(), words=0)
        texts = [" ".join(words) for words in question.references]
        result = metric.compute(predictions=[" ".join(question.hypothesis)], references=[texts], tokenizer=str.split)
        return Answer(precisions=tuple(float(value) for value in result["precisions"]), words=int(result["translation_length"]))
    except Exception as problem:  # of a foreign library, which fails in its own ways
        raise UnavailableError(f"HF evaluate: {' '.join(str(problem).split()) or type(problem).__name__}") from problem


if __name__ == "__main__":
    os.chdir(Path(__file__).parent)  # evaluate would run a bleu/bleu.py in the user's current folder
    serve(Question, run)
