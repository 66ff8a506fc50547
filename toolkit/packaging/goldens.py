"""Record golden captions of an artifact, which `runtimes.verification.golden` replays on another machine."""

import hashlib
import io
import json
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image

from runtimes.artifact import json_dataclass
from runtimes.captioner import Captioner
from runtimes.errors import GoldenError
from runtimes.images.reading import preprocess, read_image
from runtimes.verification.golden import (
    FILE,
    LOGITS,
    LOGITS_ROLE,
    ROLE,
    SCHEMA,
    SEARCHES,
    Golden,
    GoldenCaption,
    GoldenPicture,
    differs,
    follow,
    machine_of,
    observe,
)

PICTURES = ("cat.jpg", "coffee.jpg", "parrot.jpg")
"""Of the shipped sample, all CC0."""

BOUNDS = {"fp32": (1e-3, 1e-3), "fp16": (0.05, 0.5), "int8": (0.2, 0.5), "int4": (0.2, 0.5)}
"""Precision → (tie in nat, tolerance of a logit) on another machine. FP32: the export gate's. Quantized: on another instruction set an
activation rounds to the next of 255 steps. The shipped model's captions with AVX2 alone (qemu's Haswell) against AVX-512 VNNI: logits
differed by 3e-6 (`onnx-fp32`), 0.19 (`onnx-int8`), 0.18 (`onnx-int4`), margins by 6e-6, 0.14 and 0.16. FP16 was not measured."""


def record(captioner: Captioner, path: Path) -> dict[str, tuple[str, bytes]]:
    """Caption the golden pictures; return file name → (role, content).

    Args:
        captioner: Of the artifact.
        path: Of the artifact, for messages.

    Raises:
        GoldenError: Of one that the export's gate saw, the artifact says something else here than it did then.
    """
    at_export = captioner.manifest.gate.get("captions", {})
    spec, manifest = captioner.manifest.image, captioner.manifest
    length = manifest.defaults.max_length
    tie_nat, tolerance = BOUNDS[manifest.target.precision]
    files: dict[str, tuple[str, bytes]] = {}
    pictures, logits = [], []
    for name in PICTURES:
        original, content = f"golden-{name}", resources.files("toolkit.sample").joinpath(name).read_bytes()
        resized = original.replace(".jpg", ".png")
        image = read_image(content, name)
        pixels = preprocess(image, spec)
        observed = observe(captioner, pixels, length)
        captions = [
            GoldenCaption(
                beams=beams,
                token_ids=found.token_ids,
                text=captioner.tokens.text(found.token_ids),
                score=found.score,
                margins_nat=tuple(follow(captioner, pixels, found.token_ids)[0]),
            )
            for beams, found in zip(SEARCHES, observed.hypotheses, strict=True)
        ]
        before = at_export.get(hashlib.sha256(content).hexdigest())
        if before is not None and before != list(captions[0].token_ids):
            was = replace(captions[0], token_ids=tuple(before), text=captioner.tokens.text(before))
            tie, problem = differs(captioner, pixels, was, observed.hypotheses[0], tie_nat)
            if not tie:
                raise GoldenError(path, f"{name}: {problem} as at export")
        files[original] = (f"{ROLE}:{original}", content)
        files[resized] = (f"{ROLE}:{resized}", _png(image.resize((spec.width_px, spec.height_px), Image.Resampling[spec.resample.upper()])))
        pictures.append(GoldenPicture(original=original, resized=resized, captions=tuple(captions)))
        logits.append(observed.logits)
    golden = Golden(
        schema=SCHEMA,
        max_length=length,
        tie_nat=tie_nat,
        logits_tolerance=tolerance,
        machine=machine_of(captioner),
        pictures=tuple(pictures),
    )
    files[FILE] = (ROLE, (json.dumps(json_dataclass.to_json(golden), indent=1, ensure_ascii=False) + "\n").encode())
    files[LOGITS] = (LOGITS_ROLE, np.stack(logits).astype("<f4").tobytes())
    return files


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=9)
    return stream.getvalue()
