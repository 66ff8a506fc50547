"""Read and check the settings of a checkpoint's image processor, without torch or transformers."""

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from exporters.checkpoint.weight_files import first_line, load_json
from runtimes.artifact.manifest import MAX_SCALE, ImageSpec
from runtimes.errors import CheckpointError

logger = logging.getLogger(__name__)

FILES = ("preprocessor_config.json", "processor_config.json")
"""In the order of transformers 4: the second, which transformers 5 writes, is read if the first is missing."""
STEPS = ("do_resize", "do_rescale", "do_normalize")
"""Steps that BLIP's image processor always does."""
CONVERT = "do_convert_rgb"
"""Has no effect here: images are always converted to RGB."""
RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


def read_image_settings(directory: Path, source: str) -> dict[str, Any]:
    """Return the settings of the image processor, with `size`, `image_mean` and `image_std` in their long forms.

    Args:
        directory: The checkpoint's folder.
        source: What the user named, for error messages.

    Raises:
        CheckpointError: The file is missing or unreadable, or settings are not supported. The message names each of these and the cure.
    """
    name = next((name for name in FILES if (directory / name).is_file()), None)
    if name is None:
        raise CheckpointError(source, f"has neither {' nor '.join(FILES)}; copy the file of the base model that was fine-tuned")
    try:
        settings = load_json(directory / name)
        settings = settings.get("image_processor", settings)
        settings = {key: value for key, value in settings.items() if value is not None or key not in ("size", "image_mean", "image_std")}
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(source, f"cannot read its image processor, {name}: {first_line(error)}") from error
    kind = str(settings.get("image_processor_type") or settings.get("feature_extractor_type") or "Blip")
    if problems := list(_problems(settings)):
        cure = "" if kind.startswith("Blip") else f"; this is the file of a {kind}: copy that of the model that was fine-tuned"
        raise CheckpointError(source, f"{name}: {'; '.join(problems)}{cure}")
    if not kind.startswith("Blip"):
        logger.warning("%s: %s is the file of a %s; its size, mean and standard deviation are used", source, name, kind)
    if "size" in settings:
        height_px, width_px = _sides(settings["size"])
        settings["size"] = {"height": height_px, "width": width_px}
    for key in ("image_mean", "image_std"):
        if key in settings and not isinstance(settings[key], list):
            settings[key] = [settings[key]] * 3
    return settings


def image_spec(processor: Any) -> ImageSpec:  # noqa: ANN401
    """Convert the settings of transformers' image processor, which has its own values for those that are missing."""
    return ImageSpec(
        height_px=processor.size["height"],
        width_px=processor.size["width"],
        resample=RESAMPLE[int(processor.resample)],  # type: ignore[arg-type]
        mean=tuple(processor.image_mean),
        std=tuple(processor.image_std),
        rescale=processor.rescale_factor,
    )


def _problems(settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield a description of each setting that is not supported, with its cure."""
    for key, value in settings.items():
        if key in STEPS and value is not True:
            yield f"{key} is {_json(value)}, which is not supported; BLIP needs this step: set it to true"
        elif key.startswith("do_") and key not in (*STEPS, CONVERT) and value:
            yield f"{key} is {_json(value)}, which is not supported; BLIP has no such step: set it to false, or remove it"
    if "size" in settings and not all(type(side) is int and side > 0 for side in _sides(settings["size"])):
        yield (
            f"size is {_json(settings['size'])}, which is not supported; write the model's image_size as "
            '{"height": 384, "width": 384}: BLIP resizes to a square without cropping'
        )
    if "resample" in settings and not (type(settings["resample"]) is int and settings["resample"] in RESAMPLE):
        known = ", ".join(f"{number} ({name})" for number, name in RESAMPLE.items())
        yield f"resample is {_json(settings['resample'])}, which is not supported; write a number: {known}"
    if "rescale_factor" in settings and not (_is_number(settings["rescale_factor"]) and settings["rescale_factor"]):
        yield f"rescale_factor is {_json(settings['rescale_factor'])}, which is not supported; BLIP's is {1 / 255}"
    for key in ("image_mean", "image_std"):
        value = settings.get(key, 1)
        numbers = value if isinstance(value, list) and len(value) == 3 else [value]
        if not all(map(_is_number, numbers)) or (key == "image_std" and 0 in numbers):
            yield f"{key} is {_json(value)}, which is not supported; write one number or three{', not 0' if key == 'image_std' else ''}"


def _sides(size: Any) -> tuple[Any, Any]:  # noqa: ANN401 - from JSON
    """Return height and width in the three notations of transformers; (None, None) for any other."""
    if isinstance(size, int):
        return size, size
    if isinstance(size, list) and len(size) == 2:
        return size[0], size[1]
    return (size["height"], size["width"]) if isinstance(size, dict) and set(size) == {"height", "width"} else (None, None)


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) < MAX_SCALE  # type: ignore[arg-type]


def _json(value: object) -> str:
    return json.dumps(value)
