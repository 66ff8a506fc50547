"""Run HF `evaluate`'s "bleu" script in this process (a worker of `runtimes.workers`)."""

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from runtimes.errors import UnavailableError
from runtimes.workers.child import Send, serve

REVISION = "40c118bb2e381823f1072324b22cea3d7506b73b"
"""Commit of the hub space evaluate-metric/bleu. The script is pinned, so that later changes of the space are not executed."""

_TRUE = {"1", "ON", "YES", "TRUE"}
"""Values that the Hugging Face libraries read as true."""


@dataclass(frozen=True, kw_only=True)
class NgramRequest:
    """The words of one image. Without a hypothesis the worker only loads the script."""

    source: str
    """Name on the hub, or absolute path of a folder that contains a script of the same name."""
    hypothesis: tuple[str, ...] = ()
    references: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, kw_only=True)
class NgramPrecisions:
    """The result of the script."""

    precisions: tuple[float, ...]
    """Of 1..4-grams."""
    words: int
    """Length of the hypothesis."""


@cache
def load(source: str) -> Any:  # noqa: ANN401 evaluate ships no types
    """Load the script from the hub at `REVISION`, from the cache, or from a folder.

    Raises:
        FileNotFoundError: The script cannot be downloaded, or offline mode is on, and the cache does not contain it.
    """
    if any(os.environ.get(name, "").upper() in _TRUE for name in ("HF_HUB_OFFLINE", "HF_EVALUATE_OFFLINE")):
        os.environ["HF_EVALUATE_OFFLINE"] = "1"  # evaluate reads only this variable
        if not Path(source).is_dir() and not cached(source).is_dir():  # checked before an import that takes seconds
            raise FileNotFoundError(f"offline, and no script in {cached(source)}")
    os.environ["HF_UPDATE_DOWNLOAD_COUNTS"] = "0"
    import evaluate

    try:
        return evaluate.load(source, module_type="metric", revision=REVISION, keep_in_memory=True)
    except FileNotFoundError:  # its message names a folder of the toolkit
        raise FileNotFoundError("its script is neither on the Hugging Face hub nor in the cache; connect to the network once") from None


def cached(source: str) -> Path:
    """Return the folder in which `evaluate` caches a metric's script."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    modules = os.environ.get("HF_MODULES_CACHE") or Path(home, "modules")
    return Path(modules, "evaluate_modules", "metrics", f"evaluate-metric--{source}").expanduser()


def run(request: NgramRequest, send: Send) -> NgramPrecisions:
    """Compute the precisions of one image; without a hypothesis, only load the script."""
    try:
        metric = load(request.source)
        if not request.hypothesis:
            return NgramPrecisions(precisions=(), words=0)
        texts = [" ".join(words) for words in request.references]
        result = metric.compute(predictions=[" ".join(request.hypothesis)], references=[texts], tokenizer=str.split)
        return NgramPrecisions(precisions=tuple(float(value) for value in result["precisions"]), words=int(result["translation_length"]))
    except Exception as problem:  # a third-party script may raise anything
        raise UnavailableError(f"HF evaluate: {' '.join(str(problem).split()) or type(problem).__name__}") from problem


if __name__ == "__main__":
    os.chdir(Path(__file__).parent)  # otherwise evaluate would execute bleu/bleu.py in the user's current folder
    serve(NgramRequest, run)
