"""Record golden captions: captions and logits of an artifact that `runtimes.verification.replay` compares on another machine."""

import hashlib
import io
import json
import logging
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from exporters.gate.gate import text_key
from runtimes.artifact import json_dataclass
from runtimes.artifact.manifest import ImageSpec
from runtimes.errors import GoldenError
from runtimes.images.reading import read_image
from runtimes.tasks.results import GeneratedText
from runtimes.verification.golden import (
    LOGITS,
    LOGITS_ROLE,
    ROLE,
    SCHEMA,
    SEARCHES,
    Golden,
    GoldenCaption,
    GoldenImage,
    Logits,
    Sensitivity,
)
from runtimes.verification.replay import (
    Model,
    compare_caption,
    compare_image,
    first_logits,
    golden_caption,
    has_logits,
    machine_of,
    searches_of,
    teacher_force,
)
from toolkit.datasets import load_dataset

logger = logging.getLogger(__name__)

IMAGES = ("cat.jpg", "coffee.jpg", "parrot.jpg")
"""Images of `toolkit/sample`, all with licence CC0."""

BOUNDS = {"fp32": (1e-3, 1e-3), "fp16": (0.05, 0.5), "int8": (0.2, 0.5), "int4": (0.2, 0.5)}
"""Precision → (margin of a tie in nat, tolerance of a logit) between two machines.

FP32 has the bounds of the export gate. With INT8 activations, another instruction set may round a value to the next of 255 steps.
Measured with the shipped model, AVX2 (qemu's Haswell) against AVX-512 VNNI: logits differ by 3e-6 (`onnx-fp32`), 0.19 (`onnx-int8`) and
0.18 (`onnx-int4`); margins differ by 6e-6, 0.14 and 0.16. FP16 was not measured."""

Files = dict[str, tuple[str, bytes]]
"""File name → (role, content)."""


@dataclass(frozen=True)
class Recording:
    """Golden captions and the images and logits that they were recorded with."""

    golden: Golden
    """The content of golden.json; `sensitivity` has a placeholder."""
    images: tuple[Image.Image, ...]
    """The decoded originals, RGB."""
    logits: Logits
    files: Files
    """Files of the images and the logits, to add to the package."""


@dataclass(frozen=True, kw_only=True)
class PackagedImage:
    """A golden image in the forms of a package."""

    name: str
    """Its file name in `toolkit/sample`."""
    sha256: str
    """Hash of the original file."""
    decoded: Image.Image
    """RGB."""
    original: str
    """File name of the original in the package."""
    resized: str
    """File name of the resized PNG in the package."""


def golden_images(spec: ImageSpec) -> tuple[list[PackagedImage], Files]:
    """Return the golden images, and their files."""
    images: list[PackagedImage] = []
    files: Files = {}
    for name in IMAGES:
        original, content = f"golden-{name}", resources.files("toolkit.sample").joinpath(name).read_bytes()
        resized, image = original.replace(".jpg", ".png"), read_image(content, name)
        files[original] = (f"{ROLE}:{original}", content)
        files[resized] = (f"{ROLE}:{resized}", _png(image.resize((spec.width_px, spec.height_px), Image.Resampling[spec.resample.upper()])))
        sha256 = hashlib.sha256(content).hexdigest()
        images.append(PackagedImage(name=name, sha256=sha256, decoded=image, original=original, resized=resized))
    return images, files


def record(model: Model, path: Path) -> Recording:
    """Caption the golden images.

    Args:
        model: The loaded artifact.
        path: Path of the artifact, for messages.

    Raises:
        GoldenError: The export gate captioned one of the images, and its caption differs from the one here.
    """
    manifest = model.manifest
    searches, length, settings = searches_of(model), manifest.defaults.max_length, manifest.defaults.deterministic()
    if left_out := [str(num_beams) for num_beams in SEARCHES if num_beams not in searches]:
        logger.warning("%s: its session has no search with %s beams, so none is recorded", path, ", ".join(left_out))
    tie_nat, tolerance = BOUNDS[manifest.target.precision]
    images, files = golden_images(manifest.image)
    recorded_images, logits = [], []
    questions = {sample.path.name: sample.question for sample in reversed(load_dataset("sample", task=manifest.task).images)}
    for golden_image in images:
        name, image = golden_image.name, golden_image.decoded
        question = questions[name]  # the first one about this image
        results = [golden_caption(model, image, question, num_beams, length) for num_beams in searches]
        captions = tuple(
            _recorded(model, image, question, num_beams, caption) for num_beams, caption in zip(searches, results, strict=True)
        )
        gate_ids = manifest.gate.get("captions", {}).get(text_key(golden_image.sha256, question))
        if gate_ids is not None:
            actual = model.generate([image], [question], generation_config=settings)[0]
            recorded = _recorded(model, image, question, settings.num_beams, actual)
            at_export = replace(recorded, token_ids=tuple(gate_ids), text=model.tokenizer.text(gate_ids))
            tie, problem = compare_caption(model, image, question, at_export, actual, tie_nat)
            if problem is not None and not tie:
                raise GoldenError(path, f"{name}: {problem} as at export")
        recorded_images.append(
            GoldenImage(
                original=golden_image.original,
                resized=golden_image.resized,
                captions=captions,
                question=question,
                question_ids=None if question is None else tuple(model.tokenizer.encoder_ids(question)),
            )
        )
        logits += [row] if (row := first_logits(model, image, question)) is not None else []
    golden = Golden(
        schema=SCHEMA,
        max_length=length,
        tie_nat=tie_nat,
        logits_tolerance=tolerance if logits else None,
        sensitivity=Sensitivity(layer="", noticed=False),
        machine=machine_of(model),
        images=tuple(recorded_images),
    )
    if logits:
        files[LOGITS] = (LOGITS_ROLE, np.stack(logits).astype("<f4").tobytes())
    return Recording(golden, tuple(image.decoded for image in images), np.stack(logits) if logits else None, files)


def notices(recording: Recording, damaged: Model) -> bool:
    """Return whether golden captions or logits differ between an artifact and a damaged copy of it."""
    return any(
        compare_image(damaged, image, "", recording.golden, index, recording.logits).differences
        for index, image in enumerate(recording.images)
    )


def golden_json(golden: Any, sensitivity: Sensitivity) -> tuple[str, bytes]:  # noqa: ANN401 - the dataclass of a task
    """Return the role and the content of golden.json."""
    golden = json_dataclass.dump(replace(golden, sensitivity=sensitivity))
    return ROLE, (json.dumps(golden, indent=1, ensure_ascii=False) + "\n").encode()


def _recorded(model: Model, image: Image.Image, question: str | None, num_beams: int, caption: GeneratedText) -> GoldenCaption:
    assert caption.score is not None, caption.error
    margins = teacher_force(model, image, question, caption.token_ids)[0] if has_logits(model) else None
    return GoldenCaption(num_beams=num_beams, token_ids=caption.token_ids, text=caption.text, score=caption.score, margins_nat=margins)


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=9)
    return stream.getvalue()
