"""The runtime for devices: load an artifact and caption images.

from runtimes import load

with load("build/artifacts/blip-mini-coco-onnx-int8") as captioner:
    print(captioner.caption("photo.jpg")[0].text)
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtimes.caption import Caption
    from runtimes.captioner import Captioner
    from runtimes.errors import ToolkitError
    from runtimes.loading import load

__all__ = ["Caption", "Captioner", "ToolkitError", "load"]

_MODULES = {"Caption": "caption", "Captioner": "captioner", "ToolkitError": "errors", "load": "loading"}


def __getattr__(name: str) -> object:
    """Import a public name on first use. Code that only reads a manifest or an error needs no third-party library."""
    if name not in _MODULES:
        raise AttributeError(f"module 'runtimes' has no attribute {name!r}")
    return getattr(import_module(f"runtimes.{_MODULES[name]}"), name)
