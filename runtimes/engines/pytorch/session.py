"""Open an artifact with torch: a `Session` that runs the BLIP module in FP32, FP16 or dynamic INT8.

Axes as in `runtimes.decoding.session`, and H heads, P past tokens, N vision tokens, Dh width of a head.
"""

import contextlib
import gc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from runtimes.artifact.verified_files import VerifiedFiles
from runtimes.decoding.session import STEPWISE, Capability, DeviceMemoryError, EngineInfo, Float32, Inputs, Int64
from runtimes.engine_registry import load_target
from runtimes.engines.pytorch.blip import Blip
from runtimes.engines.pytorch.int8_layers import Int8Embedding, Int8Linear, packing_engine
from runtimes.engines.pytorch.safetensors_file import TensorFile
from runtimes.engines.pytorch.threads import CpuThreads
from runtimes.errors import ArtifactCorruptError, UnavailableError, translate_errors
from runtimes.families.registry import ModelSpec

SCALES = ".scales"
"""Suffix of a tensor of scales: `x.weight` is int8 if the file has `x.weight.scales`, with one scale per row."""


@dataclass
class TorchState:
    """State of the search: key and value per decoder layer (k0, v0, k1, v1, ...)."""

    cross: list[Tensor]
    """f[B,H,N,Dh] each, of cross-attention."""
    past: list[Tensor]
    """f[R,H,P,Dh] each, the cache of self-attention."""


class TorchSession:
    """Runs the BLIP module on a torch device."""

    capabilities: frozenset[Capability] = STEPWISE

    def __init__(self, model: Blip, *, device: str, threads: int, precision: str, engine: str | None = None) -> None:
        self._device, self._threads, self._precision, self._engine = device, CpuThreads(threads), precision, engine
        self._model = model.eval().requires_grad_(False).to(device)
        self._dtype = model.vision_model.post_layernorm.weight.dtype

    @torch.inference_mode()
    def encode(self, inputs: Inputs) -> TorchState:
        """See `Session.encode`. In INT8, each image is a run of its own, because activations have one scale per run."""
        return self._start(self._encode(inputs))

    @torch.inference_mode()
    def step(self, token_ids: Int64, state: TorchState, positions: Int64) -> tuple[Float32, TorchState]:
        """See `Session.step`."""
        ids, index = torch.from_numpy(token_ids).to(self._device), torch.from_numpy(positions).to(self._device)
        with self._threads, device_memory():
            logits, present = self._model.decode(ids, index, state.past, state.cross)
        return logits.cpu().numpy(), TorchState(state.cross, present)

    @torch.inference_mode()
    def select(self, state: TorchState, rows: Int64, images: Int64) -> TorchState:
        """See `Session.select`."""
        with self._threads, device_memory():
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

    def _encode(self, inputs: Inputs) -> list[Tensor]:
        """Return the outputs of the module's `encode`, f[B,...] each."""
        with self._threads, device_memory():
            pixels = torch.from_numpy(inputs["pixels"]).to(self._device)
            runs = [self._model.encode(part) for part in (pixels.split(1) if self._engine else [pixels])]
            return runs[0] if len(runs) == 1 else [torch.cat(parts) for parts in zip(*runs, strict=True)]

    def _start(self, cross: list[Tensor]) -> TorchState:
        """Return the state of one row without tokens for each source of cross-attention."""
        shape = self._model.shape
        empty = torch.zeros(len(cross[0]), shape.text_heads, 0, shape.head_width, dtype=self._dtype, device=self._device)
        return TorchState(cross, [empty] * len(cross))

    def _take(self, value: Tensor, indices: Int64) -> Tensor:
        """Return the entries of the first axis at `indices` i64[n]; the same tensor if these are all of them in order."""
        index = torch.from_numpy(indices)
        if torch.equal(index, torch.arange(len(value))):
            return value
        return value.index_select(0, index.to(value.device))


def open_session(files: VerifiedFiles, device: str, threads: int, options: Mapping[str, object]) -> TorchSession:
    """Load the weights of an artifact of contract `split/1` and open a session; see `open_as` for arguments and errors."""
    return open_as(TorchSession, files, device, threads, options)


S = TypeVar("S", bound=TorchSession)


def open_as(session: type[S], files: VerifiedFiles, device: str, threads: int, options: Mapping[str, object]) -> S:
    """Load the weights of an artifact and open a session of a class.

    Args:
        session: Class of the session.
        files: Files of the artifact.
        device: "cpu" or "cuda".
        threads: CPU threads.
        options: Must be empty; torch has no provider options.

    Raises:
        UnavailableError: torch cannot run the artifact on the device.
        ArtifactCorruptError: See `load_model`.
    """
    manifest = files.artifact.manifest
    if device not in ("cpu", "cuda") or options:
        raise UnavailableError(f"artifacts of the torch runtime run on cpu and cuda, without provider options, not on {device}")
    if device == "cuda" and not torch.cuda.is_available():
        raise UnavailableError("torch finds no CUDA device here; use --device cpu")
    if device == "cuda" and manifest.target.precision == "int8":
        raise UnavailableError("INT8 artifacts of the torch runtime run on the CPU only; use --device cpu or an FP16 artifact")
    if device == "cuda":
        gc.collect()  # frees the memory of a model that is no longer referenced
        torch.cuda.empty_cache()
    with packing_engine() if manifest.target.precision == "int8" else contextlib.nullcontext() as engine:
        model = load_model(files, manifest.model)
    return session(model, device=device, threads=threads, precision=manifest.target.precision, engine=engine)


class device_memory:  # noqa: N801 - a context manager, used like a function
    """Turns CUDA's out-of-memory error into DeviceMemoryError and frees cached blocks."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:  # noqa: ANN401
        if isinstance(error, torch.cuda.OutOfMemoryError):
            torch.cuda.empty_cache()
            raise DeviceMemoryError(str(error).splitlines()[0]) from error


def load_model(files: VerifiedFiles, spec: ModelSpec) -> Blip:
    """Build the module and load its weights from an artifact's safetensors file.

    INT8 tensors are read and packed one by one, so that memory never contains a second copy of the file.

    Args:
        files: Files of the artifact.
        spec: Sizes of the model.

    Raises:
        ArtifactCorruptError: The file does not match its manifest, or its tensors do not match the sizes.
    """
    with torch.device("meta"):
        model: Blip = load_target(spec.TORCH_MODULE)(spec)
    heads = {table: head.removesuffix(".weight") for head, table in model.HEAD_TABLES.items()} if spec.tied else {}
    plain: dict[str, Tensor] = {}
    stream, path = files.open("weights"), files.artifact.path_of("weights")
    # Packing raises exceptions of several classes.
    with translate_errors(lambda problem: ArtifactCorruptError(path, f"cannot be loaded: {problem}")):
        file = TensorFile(stream)
        names = file.names()
        for name in names:
            if name.endswith(SCALES) or (name.endswith(".bias") and f"{name.removesuffix('.bias')}.weight{SCALES}" in names):
                continue  # these are read together with their weight
            if name + SCALES not in names:
                plain[name] = file.read(name)
                continue
            module, scales = name.removesuffix(".weight"), file.read(name + SCALES)
            if isinstance(model.get_submodule(module), nn.Embedding):
                table = file.read(name)
                _replace(model, module, Int8Embedding(table, scales))
                if name in heads:
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
