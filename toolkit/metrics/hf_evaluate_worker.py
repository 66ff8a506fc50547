"""Run HF `evaluate`'s "bleu" script in a process of its own: questions come in on stdin, its answers go out on stdout.

Started by `toolkit.metrics.hf_evaluate` as a plain script, never imported; it needs `evaluate` and nothing of ours. All lines are
JSON. The first answer is {} once the script is loaded; after that each line {"hypothesis": words, "references": [words]} is
answered by {"precisions": [4 numbers], "words": count}. {"error": text} takes the place of an answer. It ends with its stdin.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

_TRUE = {"1", "ON", "YES", "TRUE"}
"""What the Hugging Face libraries take for yes."""


def load(source: str) -> Any:  # noqa: ANN401 evaluate ships no types
    """Load the script: from the hub, from its cache, or from a folder.

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
        return evaluate.load(source, keep_in_memory=True)
    except FileNotFoundError:  # names a folder of ours that nobody asked for
        raise FileNotFoundError("neither the Hugging Face hub nor the cache gave its script") from None


def cached(source: str) -> Path:
    """Say where `evaluate` keeps a metric's script once it has fetched it."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    modules = os.environ.get("HF_MODULES_CACHE") or Path(home, "modules")
    return Path(modules, "evaluate_modules", "metrics", f"evaluate-metric--{source}").expanduser()


def main() -> None:
    """Answer questions until stdin ends."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what the libraries print is no answer

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    try:
        metric = load(sys.argv[1])
    except Exception as problem:
        say({"error": " ".join(str(problem).split()) or type(problem).__name__})
        return
    say({})
    for line in sys.stdin:
        asked = json.loads(line)
        texts = [" ".join(words) for words in asked["references"]]
        try:
            result = metric.compute(predictions=[" ".join(asked["hypothesis"])], references=[texts], tokenizer=str.split)
            say({"precisions": [float(one) for one in result["precisions"]], "words": int(result["translation_length"])})
        except Exception as problem:
            say({"error": f"{type(problem).__name__}: {problem}"})


if __name__ == "__main__":
    main()
