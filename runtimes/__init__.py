"""What ships to a device: open an artifact, caption a picture.

captioner = runtimes.load("build/artifacts/blip-mini-coco-onnx-int8")
captions = captioner.caption(["photo.jpg"])
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtimes.loading import load as load

__all__ = ["load"]


def __getattr__(name: str) -> object:
    """Import `load` on first use, so that reading a manifest or an error needs none of the libraries behind it."""
    if name != "load":
        raise AttributeError(f"module 'runtimes' has no attribute {name!r}")
    from runtimes.loading import load

    return load
