"""A BLIP checkpoint: a directory or hub id goes in; sizes, picture and token rules, tokenizer and FP32 weights come out.

Only data is read: safetensors, JSON, and a `.bin` through torch's weights-only loader when the user allows it.
"""

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
import transformers
from huggingface_hub import snapshot_download
from PIL import Image
from transformers import AutoTokenizer, BlipConfig

from exporters.checkpoint.resolution import interpolate_positions, resized
from exporters.writing.output_paths import name_of
from runtimes.artifact.generation import GenerationConfig
from runtimes.artifact.manifest import ImageSpec, Source, TokenizerSpec
from runtimes.engines.pytorch.blip import Blip
from runtimes.engines.pytorch.layers import ACTIVATIONS
from runtimes.errors import CheckpointError
from runtimes.families.blip import BlipSpec

logger = logging.getLogger(__name__)

ARCHITECTURE = "BlipForConditionalGeneration"
WEIGHTS, SHARDS, BIN = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"
CARD = "README.md"

TABLE = "text_decoder.bert.embeddings.word_embeddings.weight"
HEAD = "text_decoder.cls.predictions.decoder.weight"
POSITIONS = "vision_model.embeddings.position_embedding"
ALIASES: dict[str, str | None] = {
    HEAD: TABLE,  # tied: transformers, too, takes the word table for the head
    "text_decoder.cls.predictions.decoder.bias": "text_decoder.cls.predictions.bias",
    "text_decoder.bert.embeddings.position_ids": None,
    "vision_model.embeddings.position_ids": None,
}
"""Names that older files carry → the name of the same tensor in our module, or None for buffers that hold 0, 1, 2, ..."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A BLIP captioning checkpoint on disk."""

    name: str
    """Last part of its path or hub id; artifacts are named after it."""
    directory: Path
    weight_files: tuple[Path, ...]
    source: Source
    model: BlipSpec
    """Sizes of what is made from it; its own ones, but for a copy from `at_scale`."""
    stored: BlipSpec
    """Sizes of the tensors in its files."""
    image: ImageSpec
    tokenizer: TokenizerSpec
    defaults: GenerationConfig
    tokenizer_json: bytes

    def at_scale(self, scale: float) -> "Checkpoint":
        """Return the same checkpoint for pictures of `scale` times its patches per side; its positions are interpolated when loaded."""
        if scale == 1:
            return self
        model, image = resized(self.stored, self.image, scale)
        return replace(self, model=model, image=image)

    @property
    def fp32_bytes(self) -> int:
        """Size of all weights as FP32."""
        with torch.device("meta"):
            return sum(parameter.nbytes for parameter in Blip(self.model).parameters())

    def load_weights(self) -> dict[str, torch.Tensor]:
        """Read all tensors as f32 under the names of `runtimes.engines.pytorch.blip.Blip`; the tied head appears under both of its names.

        Raises:
            CheckpointError: A file is damaged, or tensors are missing, unknown or of the wrong shape; all are named.
        """
        raw: dict[str, torch.Tensor] = {}
        for file in self.weight_files:
            raw.update(_read_tensors(file))
        if HEAD in raw and TABLE in raw and not torch.equal(raw[HEAD], raw[TABLE]):
            raise CheckpointError(str(self.directory), "its head is not tied to its word embeddings, which no exporter supports yet")
        weights: dict[str, torch.Tensor] = {}
        for name, tensor in raw.items():
            target = ALIASES.get(name, name)
            if target is not None:
                weights[target] = tensor.float()
        if TABLE in weights:
            weights[HEAD] = weights[TABLE]
        with torch.device("meta"):
            expected = {name: tuple(tensor.shape) for name, tensor in Blip(self.stored).state_dict().items()}
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
        weights[POSITIONS] = interpolate_positions(weights[POSITIONS], self.model)
        return weights

    def load_model(self) -> Blip:
        """Return the FP32 module with its weights, ready for inference."""
        with torch.device("meta"):
            model = Blip(self.model)
        model.load_state_dict(self.load_weights(), strict=True, assign=True)
        return model.eval().requires_grad_(False)


def open_checkpoint(source: str, revision: str | None = None, *, allow_bin: bool = False) -> Checkpoint:
    """Find a checkpoint and read everything but its weights.

    Args:
        source: A directory in Hugging Face's layout, or a hub id such as `Salesforce/blip-image-captioning-base`.
        revision: Commit, tag or branch of a hub id.
        allow_bin: Accept a `pytorch_model.bin` where there is no safetensors file.

    Raises:
        CheckpointError: It is missing, unreadable, not a BLIP captioner (says what it is), or uses something unsupported.
    """
    directory = _find(source, revision, allow_bin=allow_bin)
    config = _read_config(directory, source)
    files = _weight_files(directory, source, allow_bin=allow_bin)
    try:
        processor = pillow_processor().from_pretrained(directory)
        tokenizer = AutoTokenizer.from_pretrained(directory, use_fast=True, trust_remote_code=False)
    except Exception as error:  # transformers raises whatever its parsers raise
        raise CheckpointError(source, f"cannot read its picture processor or tokenizer: {_line(error)}") from error
    text = config.text_config
    model = _model(config, source)
    checkpoint = Checkpoint(
        name=name_of(source),
        directory=directory,
        weight_files=files,
        source=Source(
            model=name_of(source) if Path(source).is_dir() else source,
            revision=None if Path(source).is_dir() else directory.name,  # the hub's cache names folders by commit
            sha256=_sha256(files, source),
            licence=_licence(directory),
        ),
        model=model,
        stored=model,
        image=_image_spec(processor, source),
        tokenizer=TokenizerSpec(bos_id=text.bos_token_id, eos_id=text.sep_token_id, pad_id=text.pad_token_id),
        defaults=GenerationConfig(max_length=min(GenerationConfig.max_length, model.max_positions)),
        tokenizer_json=tokenizer.backend_tokenizer.to_str().encode(),
    )
    try:
        model.check_image(checkpoint.image.height_px, checkpoint.image.width_px)
    except ValueError as error:
        raise CheckpointError(source, f"its image processor does not fit the model: {error}") from error
    return checkpoint


def pillow_processor() -> Any:  # noqa: ANN401 - transformers is untyped
    """Return the Pillow-based picture processor: from transformers 5 on it has its own name, and the plain one needs torchvision."""
    return getattr(transformers, "BlipImageProcessorPil", None) or transformers.BlipImageProcessor


def _find(source: str, revision: str | None, *, allow_bin: bool) -> Path:
    if Path(source).is_dir():
        if revision is not None:
            raise CheckpointError(source, "--revision is for hub ids, this is a directory")
        return Path(source)
    if source.count("/") != 1 or source.startswith((".", "/", "~")) or Path(source).exists():
        raise CheckpointError(source, "no such checkpoint directory")
    patterns = ["*.json", "*.safetensors", "vocab.txt", CARD] + (["*.bin"] if allow_bin else [])
    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=patterns))
    except Exception as error:  # offline, unknown id, no access: huggingface_hub raises many kinds
        raise CheckpointError(source, f"no such directory, and it cannot be had from the hub: {_line(error)}") from error


def _read_config(directory: Path, source: str) -> Any:  # noqa: ANN401 - transformers is untyped
    path = directory / "config.json"
    try:
        raw = json.loads(path.read_bytes())
        architectures = [str(name) for name in raw.get("architectures") or []]
        model_type = raw.get("model_type")
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise CheckpointError(source, f"cannot read config.json: {_line(error)}") from error
    if model_type != "blip" or (architectures and ARCHITECTURE not in architectures):
        found = ", ".join(architectures) or f"model type {model_type!r}"
        raise CheckpointError(source, f"this is {found}, not a BLIP captioner ({ARCHITECTURE})")
    try:
        return BlipConfig.from_dict(raw)
    except Exception as error:  # a damaged config fails in many ways
        raise CheckpointError(source, f"cannot read config.json: {_line(error)}") from error


def _weight_files(directory: Path, source: str, *, allow_bin: bool) -> tuple[Path, ...]:
    if (directory / WEIGHTS).is_file():
        return (directory / WEIGHTS,)
    if (directory / SHARDS).is_file():
        try:
            names = sorted(set(json.loads((directory / SHARDS).read_bytes())["weight_map"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(source, f"cannot read {SHARDS}: {_line(error)}") from error
        if any(Path(str(name)).name != name or not (directory / name).is_file() for name in names):
            raise CheckpointError(source, f"{SHARDS} names files that are not beside it")
        return tuple(directory / name for name in names)
    if (directory / BIN).is_file():
        if allow_bin:
            return (directory / BIN,)
        raise CheckpointError(source, f"has no {WEIGHTS}, only {BIN}, which is a pickle; read it with --allow-bin if you trust its origin")
    raise CheckpointError(source, f"has no {WEIGHTS}")


def _read_tensors(file: Path) -> Mapping[str, torch.Tensor]:
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True) if file.suffix == ".bin" else safetensors.torch.load_file(file)
    except Exception as error:  # a damaged file raises nearly anything
        raise CheckpointError(str(file), f"damaged or unreadable: {_line(error)}") from error
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise CheckpointError(str(file), "holds something else than named tensors")
    return loaded


def _sha256(files: tuple[Path, ...], source: str) -> str:
    """Hash the weight files, one after the other."""
    digest = hashlib.sha256()
    for file in files:
        try:
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise CheckpointError(source, f"cannot read {file.name}: {_line(error)}") from error
    return digest.hexdigest()


def _licence(directory: Path) -> str | None:
    """Return the licence that a model card states in the front matter that the hub reads."""
    try:
        card = (directory / CARD).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    front = re.match(r"---\n(.*?)\n---", card, re.DOTALL)
    stated = front and re.search(r"^license:[ \t]*([\w.+-]+)[ \t]*$", front[1], re.MULTILINE)
    return stated[1] if stated else None


def _model(config: Any, source: str) -> BlipSpec:  # noqa: ANN401
    vision, text = config.vision_config, config.text_config
    if (kind := getattr(text, "position_embedding_type", "absolute")) != "absolute":
        raise CheckpointError(source, f"text position embeddings are {kind!r}; only 'absolute' is supported")
    for activation in (vision.hidden_act, text.hidden_act):
        if activation not in ACTIVATIONS:
            raise CheckpointError(source, f"activation {activation!r} is not supported; supported: {', '.join(ACTIVATIONS)}")
    try:
        return _sizes(vision, text)
    except ValueError as error:
        raise CheckpointError(source, f"config.json describes no captioner: {error}") from error


def _sizes(vision: Any, text: Any) -> BlipSpec:  # noqa: ANN401
    return BlipSpec(
        image_px=vision.image_size,
        patch_px=vision.patch_size,
        vision_width=vision.hidden_size,
        vision_inner=vision.intermediate_size,
        vision_layers=vision.num_hidden_layers,
        vision_heads=vision.num_attention_heads,
        vision_activation=vision.hidden_act,
        vision_norm_eps=vision.layer_norm_eps,
        text_width=text.hidden_size,
        text_inner=text.intermediate_size,
        text_layers=text.num_hidden_layers,
        text_heads=text.num_attention_heads,
        text_activation=text.hidden_act,
        text_norm_eps=text.layer_norm_eps,
        vocabulary=text.vocab_size,
        max_positions=text.max_position_embeddings,
    )


def _image_spec(processor: Any, source: str) -> ImageSpec:  # noqa: ANN401
    if not (processor.do_resize and processor.do_rescale and processor.do_normalize):
        raise CheckpointError(source, "its picture processor leaves out resizing, rescaling or normalizing, which is not supported")
    return ImageSpec(
        height_px=processor.size["height"],
        width_px=processor.size["width"],
        resample=Image.Resampling(processor.resample).name.lower(),  # type: ignore[arg-type]
        mean=tuple(processor.image_mean),
        std=tuple(processor.image_std),
        rescale=processor.rescale_factor,
    )


def _line(error: BaseException) -> str:
    """First line of an error's text, or its kind where it has none."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
