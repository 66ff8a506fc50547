"""torch session: our BLIP module in FP32, dynamic INT8 or FP16 behind the numeric functions of captioning.

Axes as in `runtimes.decoding.session`; H heads, P past tokens, N vision tokens, Dh width of a head.
"""

import contextlib
import gc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from runtimes.artifact.verified_files import Payload
from runtimes.decoding.session import STEPWISE, Capability, DeviceMemoryError, EngineInfo, Float32, Inputs, Int64
from runtimes.engine_registry import load_target
from runtimes.engines.pytorch.blip import Blip
from runtimes.engines.pytorch.int8_layers import Int8Embedding, Int8Linear, packing_engine
from runtimes.engines.pytorch.safetensors_file import TensorFile
from runtimes.engines.pytorch.threads import CpuThreads
from runtimes.errors import ArtifactCorruptError, UnavailableError, translate_errors
from runtimes.families.registry import ModelSpec

SCALES = ".scales"
"""A tensor `x.weight` with a sibling `x.weight.scales` is int8, one scale per row."""


@dataclass
class TorchState:
    """Cross K/V [B,H,N,Dh] and cache [R,H,P,Dh] per decoder layer: k0, v0, k1, v1, ..."""

    cross: list[Tensor]
    past: list[Tensor]


class TorchSession:
    """BLIP's module on a torch device."""

    capabilities: frozenset[Capability] = STEPWISE

    def __init__(self, model: Blip, *, device: str, threads: int, precision: str, engine: str | None = None) -> None:
        self._device, self._threads, self._precision, self._engine = device, CpuThreads(threads), precision, engine
        self._model = model.eval().requires_grad_(False).to(device)
        self._dtype = model.vision_model.post_layernorm.weight.dtype

    @torch.inference_mode()
    def encode(self, inputs: Inputs) -> TorchState:
        """See `Session.encode`. Images run one by one in INT8, whose activations have one scale per run."""
        with self._threads, _device_memory():
            pixels = torch.from_numpy(inputs["pixels"]).to(self._device)
            runs = [self._model.encode(part) for part in (pixels.split(1) if self._engine else [pixels])]
            cross = runs[0] if len(runs) == 1 else [torch.cat(parts) for parts in zip(*runs, strict=True)]
        shape = self._model.shape
        empty = torch.zeros(len(pixels), shape.text_heads, 0, shape.head_width, dtype=self._dtype, device=self._device)
        return TorchState(cross, [empty] * len(cross))

    @torch.inference_mode()
    def step(self, token_ids: Int64, state: TorchState, positions: Int64) -> tuple[Float32, TorchState]:
        """See `Session.step`."""
        ids, wanted = torch.from_numpy(token_ids).to(self._device), torch.from_numpy(positions).to(self._device)
        with self._threads, _device_memory():
            logits, present = self._model.decode(ids, wanted, state.past, state.cross)
        return logits.cpu().numpy(), TorchState(state.cross, present)

    @torch.inference_mode()
    def select(self, state: TorchState, rows: Int64, images: Int64) -> TorchState:
        """See `Session.select`."""
        with self._threads, _device_memory():
            return TorchState([self._take(value, images) for value in state.cross], [self._take(value, rows) for value in state.past])

    def crop(self, state: TorchState, length: int) -> TorchState:
        """See `Session.crop`."""
        return TorchState(state.cross, [value[:, :, :length] for value in state.past])

    def info(self) -> EngineInfo:
        """See `Session.info`."""
        return EngineInfo(
            runtime="torch",
            versions={"torch": torch.__version__},
            device=self._device,
            providers=(self._engine or self._device,),
            threads=self._threads.count,
            precision=self._precision,
        )

    def _take(self, value: Tensor, indices: Int64) -> Tensor:
        wanted = torch.from_numpy(indices)
        if torch.equal(wanted, torch.arange(len(value))):
            return value
        return value.index_select(0, wanted.to(value.device))


def open_session(payload: Payload, device: str, threads: int, options: Mapping[str, object]) -> TorchSession:
    """Load the weights of an artifact of contract `split/1`."""
    manifest = payload.artifact.manifest
    if device not in ("cpu", "cuda") or options:
        raise UnavailableError(f"artifacts of the torch runtime run on cpu and cuda, without provider options, not on {device}")
    if device == "cuda" and not torch.cuda.is_available():
        raise UnavailableError("torch sees no CUDA device here; use --device cpu")
    if device == "cuda" and manifest.target.precision == "int8":
        raise UnavailableError("INT8 artifacts of the torch runtime run on the CPU only; use --device cpu or an FP16 artifact")
    if device == "cuda":
        gc.collect()  # a model that was dropped before this one is loaded must not keep its memory
        torch.cuda.empty_cache()
    with packing_engine() if manifest.target.precision == "int8" else contextlib.nullcontext() as engine:
        model = load_model(payload, manifest.model)
    return TorchSession(model, device=device, threads=threads, precision=manifest.target.precision, engine=engine)


class _device_memory:  # noqa: N801 - a context manager, used like a function
    """Turns CUDA's out-of-memory error into ours and hands cached blocks back."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:  # noqa: ANN401
        if isinstance(error, torch.cuda.OutOfMemoryError):
            torch.cuda.empty_cache()
            raise DeviceMemoryError(str(error).splitlines()[0]) from error


def load_model(payload: Payload, spec: ModelSpec) -> Blip:
    """Build the module from an artifact's safetensors file; int8 tensors are packed one by one, so no second copy of the file is ever held.

    Raises:
        ArtifactCorruptError: The file is not what its manifest says, or its tensors are not those of the model's sizes.
    """
    with torch.device("meta"):
        model: Blip = load_target(spec.TORCH_MODULE)(spec)
    heads = {table: head.removesuffix(".weight") for head, table in model.TIED.items()}
    plain: dict[str, Tensor] = {}
    stream, path = payload.stream("weights"), payload.artifact.path_of("weights")
    with translate_errors(lambda problem: ArtifactCorruptError(path, f"cannot be loaded: {problem}")):  # packing raises whatever torch does
        file = TensorFile(stream)
        names = file.names()
        for name in names:
            if name.endswith(SCALES) or (name.endswith(".bias") and f"{name.removesuffix('.bias')}.weight{SCALES}" in names):
                continue  # read with their weight
            if name + SCALES not in names:
                plain[name] = file.read(name)
                continue
            module, scales = name.removesuffix(".weight"), file.read(name + SCALES)
            if name in heads:
                table = file.read(name)
                _replace(model, module, Int8Embedding(table, scales))
                _replace(model, heads[name], Int8Linear(table, scales, None))
            else:
                bias = file.read(f"{module}.bias") if f"{module}.bias" in names else None
                _replace(model, module, Int8Linear(file.read(name), scales, bias))
        plain |= {f"{head}.weight": plain[table] for table, head in heads.items() if table in plain}
        model.load_state_dict(plain, strict=True, assign=True)
    return model


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    model.get_submodule(parent).add_module(child, module)
