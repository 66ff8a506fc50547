"""ONNX Runtime session: the encoder and decoder graphs of contract `split/1` behind the numeric functions of captioning.

Tensors stay OrtValues between runs, so cross-attention K/V is neither copied nor seen by Python. Axes as in `runtimes.session`; H heads,
P past tokens, N vision tokens, Dh width of a head.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from runtimes.errors import ArtifactCorruptError, UnavailableError, renamed
from runtimes.graph import check_graph
from runtimes.memory import returning_freed_memory
from runtimes.payload import Payload
from runtimes.session import Description, DeviceMemoryError, Float32, Int64

logger = logging.getLogger(__name__)

PROVIDERS = {"cpu": ("CPUExecutionProvider",), "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider")}
ELEMENT_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
ERRORS = 3
"""onnxruntime's log level: its warnings speak of its own graph rewriting."""


@dataclass
class OrtState:
    """Cross K/V [B,H,N,Dh] and cache [R,H,P,Dh] per decoder layer: k0, v0, k1, v1, ..."""

    cross: list[Any]
    past: list[Any]
    binding: Any
    """Of the decoder; the cross K/V are bound to it once, as they outlive every step."""


class OrtSession:
    """BLIP's graphs on an execution provider."""

    profiles: Path | None = None
    """Folder where onnxruntime writes what every operator takes, when a session ends; for measuring only, it slows every run."""

    def __init__(self, payload: Payload, *, device: str, threads: int) -> None:
        if PROVIDERS[device][0] not in onnxruntime.get_available_providers():
            raise UnavailableError(
                f"onnxruntime has no {PROVIDERS[device][0]} here; available: {', '.join(onnxruntime.get_available_providers())}. "
                "For CUDA: pip install 'blip-toolkit[ort-gpu]' in place of [ort]."
            )
        self._device, self._threads, self._precision = device, threads, payload.artifact.manifest.target.precision
        with returning_freed_memory():
            self._encoder = self._open(payload, "encoder")
            self._decoder = self._open(payload, "decoder")
        self._cross_names = [value.name for value in self._encoder.get_outputs()]
        self._past_names = [value.name for value in self._decoder.get_inputs() if value.name.startswith("past_")]
        self._present_names = [name.replace("past_", "present_", 1) for name in self._past_names]
        inputs = {value.name: value for value in self._decoder.get_inputs()}
        if not self._past_names or set(inputs) != {"token_ids", "positions", *self._cross_names, *self._past_names}:
            wanted = ", ".join(sorted(inputs))
            raise ArtifactCorruptError(payload.artifact.path_of("decoder"), f"is not this encoder's decoder: it takes {wanted}")
        past = inputs[self._past_names[0]]
        self._empty_shape, self._dtype = (past.shape[1], 0, past.shape[3]), ELEMENT_TYPES[past.type]

    @classmethod
    def open(cls, payload: Payload, device: str, threads: int) -> "OrtSession":
        """Open an artifact's graphs."""
        return cls(payload, device=device, threads=threads)

    def encode(self, pixels: Float32) -> OrtState:
        """See `Session.encode`."""
        binding = self._encoder.io_binding()
        binding.bind_ortvalue_input("pixels", self._value(pixels))
        cross = self._run(self._encoder, binding, self._cross_names)
        empty = self._value(np.zeros((len(pixels), *self._empty_shape), dtype=self._dtype))
        return self._bound(cross, [empty] * len(self._past_names))

    def step(self, token_ids: Int64, state: OrtState, positions: Int64) -> tuple[Float32, OrtState]:
        """See `Session.step`."""
        binding = state.binding
        binding.bind_ortvalue_input("token_ids", self._value(token_ids))
        binding.bind_ortvalue_input("positions", self._value(positions))
        for name, value in zip(self._past_names, state.past, strict=True):
            binding.bind_ortvalue_input(name, value)
        logits, *present = self._run(self._decoder, binding, ["logits", *self._present_names])
        return logits.numpy(), OrtState(state.cross, present, binding)

    def select(self, state: OrtState, rows: Int64, images: Int64) -> OrtState:
        """See `Session.select`."""
        past = [self._take(value, rows) for value in state.past]
        if _all(images, state.cross[0]):
            return OrtState(state.cross, past, state.binding)
        return self._bound([self._take(value, images) for value in state.cross], past)

    def describe(self) -> Description:
        """See `Session.describe`."""
        return Description(
            runtime="ort",
            versions={"onnxruntime": onnxruntime.__version__, "numpy": np.__version__},
            device=self._device,
            providers=tuple(self._decoder.get_providers()),
            threads=self._threads,
            precision=self._precision,
        )

    def _open(self, payload: Payload, role: str) -> Any:  # noqa: ANN401 - onnxruntime is untyped
        """Make a session of a graph's own bytes; its weights are mapped from the one file beside it, which is checked before."""
        graph, path, weights = payload.read(role), payload.artifact.path_of(role), payload.mappable(f"{role}-weights")
        check_graph(path, graph, role, payload.artifact.manifest, {weights.name: payload.artifact.manifest.files[weights.name].bytes})
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = ERRORS
        options.enable_mem_pattern = False  # it plans one block for a run's activations and keeps it beside the arena: 21 MB on BLIP-base
        # The two sessions have threads of their own: those that spin after a run take a core from the other (README on speed).
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent.resolve()))
        if self.profiles is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(self.profiles / path.stem)
        with renamed(lambda problem: ArtifactCorruptError(path, f"onnxruntime {onnxruntime.__version__} cannot load it: {problem}")):
            # Its fallback would retry on other providers and print; we choose the provider and report errors ourselves.
            session = onnxruntime.InferenceSession(graph, options, providers=list(PROVIDERS[self._device]), enable_fallback=0)
        if session.get_providers()[0] != PROVIDERS[self._device][0]:
            raise UnavailableError(
                f"onnxruntime could not start {PROVIDERS[self._device][0]}; it fell back to {session.get_providers()[0]}"
            )
        return session

    def _bound(self, cross: list[Any], past: list[Any]) -> OrtState:
        binding = self._decoder.io_binding()
        for name, value in zip(self._cross_names, cross, strict=True):
            binding.bind_ortvalue_input(name, value)
        return OrtState(cross, past, binding)

    def _run(self, session: Any, binding: Any, names: list[str]) -> list[Any]:  # noqa: ANN401
        for name in names:
            binding.bind_output(name, "cpu" if name == "logits" else self._device)
        try:
            session.run_with_iobinding(binding)
        except Exception as error:
            if "allocate memory" in str(error):  # BFCArena's message is all that tells it apart
                raise DeviceMemoryError(str(error).splitlines()[0]) from error
            raise
        return list(binding.get_outputs())

    def _value(self, array: Any) -> Any:  # noqa: ANN401
        return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self._device, 0)

    def _take(self, value: Any, indices: Int64) -> Any:  # noqa: ANN401
        return value if _all(indices, value) else self._value(value.numpy()[indices])


def _all(indices: Int64, value: Any) -> bool:  # noqa: ANN401
    """Whether i64[n] names every entry of a value's first axis in order."""
    return np.array_equal(indices, np.arange(value.shape()[0]))
