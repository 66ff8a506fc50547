"""A checkpoint: sizes, image and token rules, tokenizer and FP32 weights of a directory or hub id."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoTokenizer

from exporters.checkpoint.files import find_folder, licence, line_of, read_config, read_tensors, sha256_of_files, weight_files
from exporters.families.adapter import FAMILIES, MODEL_TYPES, FamilyAdapter, find_family
from exporters.writing.output_paths import name_of
from runtimes.artifact.generation import GenerationConfig
from runtimes.artifact.manifest import ImageSpec, Source, TokenizerSpec
from runtimes.engine_registry import load_target
from runtimes.errors import CheckpointError
from runtimes.families.registry import ModelSpec

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint on disk, of one of `FAMILIES`."""

    name: str
    """Last part of its path or hub id; artifacts are named after it."""
    directory: Path
    weight_files: tuple[Path, ...]
    source: Source
    family: FamilyAdapter
    model: ModelSpec
    """Sizes of what is made from it; its own ones, but for a copy from `at_scale`."""
    stored: ModelSpec
    """Sizes of the tensors in its files."""
    image: ImageSpec
    tokenizer: TokenizerSpec
    defaults: GenerationConfig
    tokenizer_json: bytes

    def at_scale(self, scale: float) -> "Checkpoint":
        """Return the same checkpoint for images of `scale` times its patches per side; its positions are interpolated when loaded."""
        if scale == 1:
            return self
        model, image = self.family.scaled(self.stored, self.image, scale)
        return replace(self, model=model, image=image)

    @property
    def fp32_bytes(self) -> int:
        """Size of all weights as FP32."""
        return sum(parameter.nbytes for parameter in self.empty_module().parameters())

    def empty_module(self) -> Any:  # noqa: ANN401 - the family's module
        """Return the family's torch module without memory for its weights."""
        return _module(self.model)

    def load_weights(self) -> dict[str, torch.Tensor]:
        """Read all tensors as f32 under the names of the family's module; a tied tensor appears under each of its names.

        Raises:
            CheckpointError: A file is damaged, or tensors are missing, unknown or of the wrong shape; all are named.
        """
        raw: dict[str, torch.Tensor] = {}
        for file in self.weight_files:
            raw.update(read_tensors(file))
        try:
            weights = self.family.named_weights(raw)
        except ValueError as error:
            raise CheckpointError(str(self.directory), str(error)) from error
        expected = {name: tuple(tensor.shape) for name, tensor in _module(self.stored).state_dict().items()}
        problems = [f"missing tensor {name}" for name in sorted(set(expected) - set(weights))]
        problems += [f"unknown tensor {name}" for name in sorted(set(weights) - set(expected))]
        problems += [
            f"{name} has shape {list(weights[name].shape)}, config says {list(shape)}"
            for name, shape in expected.items()
            if name in weights and tuple(weights[name].shape) != shape
        ]
        if problems:
            shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
            raise CheckpointError(str(self.directory), f"weights do not fit the config: {shown}")
        return self.family.fitted_weights(weights, self.model)

    def load_model(self) -> Any:  # noqa: ANN401 - the family's module
        """Return the FP32 module with its weights, ready for inference."""
        model = self.empty_module()
        model.load_state_dict(self.load_weights(), strict=True, assign=True)
        return model.eval().requires_grad_(False)


def open_checkpoint(source: str, revision: str | None = None, *, allow_bin: bool = False) -> Checkpoint:
    """Find a checkpoint and read everything but its weights.

    Args:
        source: A directory in Hugging Face's layout, or a hub id such as `Salesforce/blip-image-captioning-base`.
        revision: Commit, tag or branch of a hub id.
        allow_bin: Accept a `pytorch_model.bin` where there is no safetensors file.

    Raises:
        CheckpointError: It is missing, unreadable, of another family (says which), or uses something unsupported.
    """
    directory = find_folder(source, revision, allow_bin=allow_bin)
    raw = read_config(directory, source)
    family = _family(raw, source)
    files = weight_files(directory, source, allow_bin=allow_bin)
    try:
        config = family.read_config(raw)
    except Exception as error:  # a damaged config fails in many ways
        raise CheckpointError(source, f"config.json cannot be exported: {line_of(error)}") from error
    try:
        processor = family.image_processor().from_pretrained(directory)
        tokenizer = AutoTokenizer.from_pretrained(directory, use_fast=True, trust_remote_code=False)
    except Exception as error:  # transformers raises whatever its parsers raise
        raise CheckpointError(source, f"cannot read its image processor or tokenizer: {line_of(error)}") from error
    image = _image_spec(processor, source)
    try:
        config.model.check_image(image.height_px, image.width_px)
    except ValueError as error:
        raise CheckpointError(source, f"its image processor does not fit the model: {error}") from error
    return Checkpoint(
        name=name_of(source),
        directory=directory,
        weight_files=files,
        source=Source(
            model=name_of(source) if Path(source).is_dir() else source,
            revision=None if Path(source).is_dir() else directory.name,  # the hub's cache names folders by commit
            sha256=sha256_of_files(files, source),
            licence=licence(directory),
        ),
        family=family,
        model=config.model,
        stored=config.model,
        image=image,
        tokenizer=config.tokenizer,
        defaults=config.defaults,
        tokenizer_json=tokenizer.backend_tokenizer.to_str().encode(),
    )


def _family(config: dict[str, Any], source: str) -> FamilyAdapter:
    """Return the adapter of the first architecture that has one."""
    listed, kind = config.get("architectures"), config.get("model_type")
    names = [str(name) for name in listed] if isinstance(listed, list) else []
    for name in names or [MODEL_TYPES.get(str(kind), "")]:
        if (family := find_family(name)) is not None:
            return family
    found = ", ".join(names) or f"model type {kind!r}"
    raise CheckpointError(source, f"this is {found}, which cannot be exported; supported: {', '.join(FAMILIES)}")


def _module(model: ModelSpec) -> Any:  # noqa: ANN401 - the family's module
    """Build a model's torch module without memory for its weights."""
    with torch.device("meta"):
        return load_target(model.TORCH_MODULE)(model)


def _image_spec(processor: Any, source: str) -> ImageSpec:  # noqa: ANN401
    if not (processor.do_resize and processor.do_rescale and processor.do_normalize):
        raise CheckpointError(source, "its image processor leaves out resizing, rescaling or normalizing, which is not supported")
    return ImageSpec(
        height_px=processor.size["height"],
        width_px=processor.size["width"],
        resample=Image.Resampling(processor.resample).name.lower(),  # type: ignore[arg-type]
        mean=tuple(processor.image_mean),
        std=tuple(processor.image_std),
        rescale=processor.rescale_factor,
    )
