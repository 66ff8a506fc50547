"""Prepare and open transformers' own model in other precisions.

`hf-int8` is the documented recipe: `torch.ao.quantization.quantize_dynamic` on the Linear layers with its defaults (INT8, one scale per
tensor). It is loaded from its saved state, which is smaller than the checkpoint. It is quantized in place, which needs less peak memory.
"""

import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from exporters.families.blip_reference import HfCaptioner, versions
from exporters.families.hf_text_model import load_transformers_model
from runtimes.decoding.session import EngineInfo
from runtimes.images.reading import ImageInput
from toolkit.bench.peers.folder import Sources

STATE_NAME = "int8.pt"
CONFIG_NAME = "config.json"


class Int8Captioner(HfCaptioner):
    """transformers' model with Linear layers in dynamic INT8."""

    def _model(self, directory: Path, *, tied: bool) -> Any:  # noqa: ANN401
        config = transformers.BlipConfig.from_pretrained(directory)
        with transformers.modeling_utils.no_init_weights():
            model = _quantized(transformers.BlipForConditionalGeneration(config))
        state = torch.load(directory / STATE_NAME, map_location="cpu", weights_only=True)
        model.load_state_dict(state)
        return model


class Bf16Captioner(HfCaptioner):
    """transformers' model with weights and activations in bfloat16."""

    def _model(self, directory: Path, *, tied: bool) -> Any:  # noqa: ANN401
        return transformers.BlipForConditionalGeneration.from_pretrained(directory, dtype=torch.bfloat16)

    def _pixels(self, image: ImageInput) -> torch.Tensor:
        return super()._pixels(image).to(torch.bfloat16)


def prepare_int8(sources: Sources, folder: Path) -> None:
    """Write the quantized state beside the configuration."""
    checkpoint = sources.checkpoint
    model = _quantized(
        load_transformers_model(checkpoint.directory, torch.float32, tied=checkpoint.model.tied, weights=checkpoint.renamed_weights())
    )
    torch.save(model.state_dict(), folder / STATE_NAME)
    _copy_settings(sources, folder)


def prepare_bf16(sources: Sources, folder: Path) -> None:
    """Write the weights in bfloat16 beside the configuration."""
    checkpoint = sources.checkpoint
    model = load_transformers_model(checkpoint.directory, torch.bfloat16, tied=checkpoint.model.tied, weights=checkpoint.renamed_weights())
    _copy_settings(sources, folder)
    model.save_pretrained(folder)


def open_int8(path: Path, threads: int) -> tuple[HfCaptioner, EngineInfo]:
    """Open a folder of `prepare_int8`."""
    return Int8Captioner(path, threads), _info(torch.backends.quantized.engine, threads, "int8")


def open_bf16(path: Path, threads: int) -> tuple[HfCaptioner, EngineInfo]:
    """Open a folder of `prepare_bf16`."""
    return Bf16Captioner(path, threads), _info("cpu", threads, "bf16")


def _quantized(model: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the documented method is deprecated
        return torch.ao.quantization.quantize_dynamic(model.eval(), {nn.Linear}, dtype=torch.qint8, inplace=True)


def _copy_settings(sources: Sources, folder: Path) -> None:
    for file in sources.checkpoint.directory.glob("*"):
        if file.suffix in (".json", ".txt") and not file.name.endswith(".index.json"):
            shutil.copyfile(file, folder / file.name)


def _info(provider: str, threads: int, precision: str) -> EngineInfo:
    return EngineInfo(
        runtime="transformers", versions=versions(), device="cpu", providers=(provider,), threads=threads, precision=precision
    )
