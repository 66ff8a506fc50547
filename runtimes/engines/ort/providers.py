"""The table of ONNX Runtime's execution providers, with one row per device name. Importing this module imports no engine.

Default options of providers with the status "not run" follow their documentation (onnxruntime.ai/docs/execution-providers). Words in braces
are replaced when a session is opened: {threads} by the number of CPU threads, {cache} by this user's folder for compiled engines.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from runtimes.errors import RequestError, UnavailableError

Options: TypeAlias = Mapping[str, str | int | float | bool]
MAX_OPTIONS_BYTES = 1 << 16
"""Largest size of a file of provider options."""


@dataclass(frozen=True, kw_only=True)
class Provider:
    """An execution provider."""

    name: str
    """ONNX Runtime's name for it."""
    distribution: str
    """Distribution package that contains it. All are imported as `onnxruntime`, so at most one can be installed."""
    needs: str
    """Hardware and software that it needs besides the package."""
    status: Literal["tested", "not run"]
    """tested: captions were compared with the CPU's; not run: the entry follows the documentation."""
    memory: Literal["cpu", "cuda"] = "cpu"
    """Memory in which tensors stay between runs."""
    fallback: tuple[str, ...] = ()
    """Devices that run the nodes that it does not support, before the CPU."""
    options: Options = field(default_factory=dict)
    """Default options."""
    fp16_options: Options = field(default_factory=dict)
    """More default options for FP16 artifacts."""


PROVIDERS: dict[str, Provider] = {
    "cpu": Provider(name="CPUExecutionProvider", distribution="onnxruntime", needs="nothing else", status="tested"),
    "cuda": Provider(
        name="CUDAExecutionProvider",
        distribution="onnxruntime-gpu",
        needs="an NVIDIA GPU with its driver, CUDA and cuDNN",
        status="not run",
        memory="cuda",
        # TF32 would round FP32 products to 10 bits. The default arena strategy grows by powers of two.
        options={"use_tf32": 0, "arena_extend_strategy": "kSameAsRequested", "cudnn_conv_algo_search": "HEURISTIC"},
    ),
    "tensorrt": Provider(
        name="TensorrtExecutionProvider",
        distribution="onnxruntime-gpu",
        needs="an NVIDIA GPU with its driver, CUDA, cuDNN and TensorRT 10",
        status="not run",
        memory="cuda",
        fallback=("cuda",),
        # Compiling takes minutes, so engines and timings are cached.
        options={
            "trt_engine_cache_enable": True,
            "trt_engine_cache_path": "{cache}",
            "trt_timing_cache_enable": True,
            "trt_timing_cache_path": "{cache}",
        },
        fp16_options={"trt_fp16_enable": True},
    ),
    "openvino": Provider(
        name="OpenVINOExecutionProvider",
        distribution="onnxruntime-openvino",
        needs="an Intel CPU or GPU; its newest package has ONNX Runtime 1.24, which is below the security floor",
        status="tested",
        options={"device_type": "CPU", "precision": "FP32", "num_of_threads": "{threads}"},
    ),
    "coreml": Provider(
        name="CoreMLExecutionProvider",
        distribution="onnxruntime",
        needs="macOS 12 or newer",
        status="not run",
        options={"ModelFormat": "MLProgram", "MLComputeUnits": "ALL"},
    ),
    "directml": Provider(
        name="DmlExecutionProvider", distribution="onnxruntime-directml", needs="Windows 10 1903 with a DirectX 12 GPU", status="not run"
    ),
    "migraphx": Provider(
        name="MIGraphXExecutionProvider", distribution="onnxruntime-migraphx", needs="an AMD GPU with ROCm", status="not run"
    ),
    "rocm": Provider(
        name="ROCMExecutionProvider",
        distribution="onnxruntime-rocm",
        needs="an AMD GPU with ROCm; its last package has ONNX Runtime 1.22, which is below the security floor",
        status="not run",
    ),
    "qnn": Provider(
        name="QNNExecutionProvider",
        distribution="onnxruntime-qnn",
        needs="a Qualcomm NPU",
        status="not run",
        options={"backend_type": "htp"},
        fp16_options={"enable_htp_fp16_precision": 1},
    ),
    "xnnpack": Provider(
        name="XnnpackExecutionProvider",
        distribution="onnxruntime",
        needs="a build of ONNX Runtime with XNNPACK",
        status="not run",
        options={"intra_op_num_threads": "{threads}"},
    ),
    "webgpu": Provider(
        name="WebGpuExecutionProvider", distribution="onnxruntime-webgpu", needs="a GPU with Vulkan, Metal or DirectX 12", status="not run"
    ),
    "cann": Provider(
        name="CANNExecutionProvider", distribution="onnxruntime-cann", needs="a Huawei Ascend NPU with CANN", status="not run"
    ),
}
"""Device name → provider."""


def chain(device: str, options: Options, *, threads: int, precision: str) -> list[tuple[str, dict[str, str]]]:
    """Return the providers of a device with their options, first choice first, for `onnxruntime.InferenceSession`.

    Args:
        device: A key of `PROVIDERS`.
        options: Options of the device's own provider. They replace defaults of the same name.
        threads: CPU threads.
        precision: Precision of the artifact, "fp16" for example.
    """
    values = _Values(device, threads)
    providers = []
    for name in dict.fromkeys((device, *PROVIDERS[device].fallback, "cpu")):
        provider = PROVIDERS[name]
        defaults = {**provider.options, **(provider.fp16_options if precision == "fp16" else {})}
        filled = {key: value.format_map(values) if isinstance(value, str) else value for key, value in defaults.items()}
        merged = {**filled, **(options if name == device else {})}
        providers.append((provider.name, {key: str(value) for key, value in merged.items()}))
    return providers


class _Values(dict[str, object]):
    """Values of the placeholders in default options. The cache folder is looked up on use: most providers need no home directory."""

    def __init__(self, device: str, threads: int) -> None:
        super().__init__(threads=threads)
        self._device = device

    def __missing__(self, key: str) -> object:
        if key != "cache":
            raise KeyError(key)
        return cache_folder(self._device)


def cache_folder(device: str) -> Path:
    """Return the cache folder for engines that a provider compiles. They are executed, so only this user should be able to write to it.

    Raises:
        UnavailableError: The user has no home directory, and XDG_CACHE_HOME is not set.
    """
    root = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(root) if root else Path.home() / ".cache") / "blip-toolkit" / device
    except RuntimeError as error:
        raise UnavailableError(f"{device}: this user has no home directory for compiled engines; set XDG_CACHE_HOME to a folder") from error


def read_options(path: Path) -> dict[str, str | int | float | bool]:
    """Read provider options from a JSON file.

    Raises:
        RequestError: The file cannot be read or is too large, or `check_options` fails.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_OPTIONS_BYTES + 1)
        parsed = json.loads(content) if len(content) <= MAX_OPTIONS_BYTES else None
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(f"{path}: cannot read provider options: {error}") from error
    return check_options(parsed, f"{path}: ")


def check_options(options: Any, where: str = "") -> dict[str, str | int | float | bool]:  # noqa: ANN401 - a JSON value
    """Return provider options after checking that names are strings and values are strings, numbers or booleans.

    Args:
        options: A JSON value.
        where: Start of error messages, for example the file's name.

    Raises:
        RequestError: A name or value has another type.
    """
    if not isinstance(options, Mapping):
        raise RequestError(f"{where}provider options must be an object of at most {MAX_OPTIONS_BYTES} bytes")
    if wrong := [repr(key) for key, value in options.items() if not isinstance(key, str) or not isinstance(value, str | int | float)]:
        raise RequestError(f"{where}provider options must be strings, numbers or booleans; these are not: {', '.join(wrong)}")
    return dict(options)
