"""The runtime for devices: load an artifact, then caption images, answer questions about them, or compare them with texts.

from runtimes import load

with load("build/artifacts/blip-mini-coco-onnx-int8") as captioner:
    print(captioner.caption("photo.jpg")[0].text)
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtimes.errors import ToolkitError
    from runtimes.loading import load
    from runtimes.pool.captioner_pool import CaptionerPool
    from runtimes.tasks.answerer import Answerer
    from runtimes.tasks.captioner import Captioner
    from runtimes.tasks.matcher import Matcher
    from runtimes.tasks.results import Answer, Caption, Embedding, Match

# ONNX Runtime 1.29 and newer writes an identifier of the device to the user's cache and sends events over the network, unless this is set
# before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = ["Answer", "Answerer", "Caption", "Captioner", "CaptionerPool", "Embedding", "Match", "Matcher", "ToolkitError", "load"]

_MODULES = {
    "Answer": "tasks.results",
    "Answerer": "tasks.answerer",
    "Caption": "tasks.results",
    "Captioner": "tasks.captioner",
    "CaptionerPool": "pool.captioner_pool",
    "Embedding": "tasks.results",
    "Match": "tasks.results",
    "Matcher": "tasks.matcher",
    "ToolkitError": "errors",
    "load": "loading",
}


def __getattr__(name: str) -> object:
    """Import a public name on first use. Code that only reads a manifest or an error needs no third-party library."""
    if name not in _MODULES:
        raise AttributeError(f"module 'runtimes' has no attribute {name!r}")
    return getattr(import_module(f"runtimes.{_MODULES[name]}"), name)
