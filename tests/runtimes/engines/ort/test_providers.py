"""Test execution providers: the table, options from files, and the errors of providers that are missing or run nothing."""

import json
import logging
import re

import pytest

import runtimes
from runtimes.engine_registry import ENGINES
from runtimes.engines.ort import open_graph
from runtimes.engines.ort.providers import MAX_OPTIONS_BYTES, PROVIDERS, Provider, chain, check_options, read_options
from runtimes.errors import RequestError, UnavailableError
from tests.paths import ROOT


def options_of(device, precision="fp32", **options):
    return dict(chain(device, options, threads=3, precision=precision))


def test_the_cpu_has_no_options():
    assert chain("cpu", {}, threads=3, precision="int8") == [("CPUExecutionProvider", {})]


def test_cuda_computes_fp32_in_fp32():
    options = options_of("cuda")
    assert list(options) == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert options["CUDAExecutionProvider"]["use_tf32"] == "0"


@pytest.mark.parametrize(("precision", "fp16"), [("fp32", None), ("int8", None), ("fp16", "True")])
def test_tensorrt_caches_its_engines_and_uses_fp16_for_fp16_artifacts(monkeypatch, tmp_path, precision, fp16):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    options = options_of("tensorrt", precision)
    assert list(options) == ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    tensorrt = options["TensorrtExecutionProvider"]
    assert tensorrt["trt_engine_cache_enable"] == "True"
    assert tensorrt["trt_engine_cache_path"] == str(tmp_path / "blip-toolkit" / "tensorrt")
    assert tensorrt.get("trt_fp16_enable") == fp16


def test_own_options_replace_defaults_of_the_named_provider_only():
    options = options_of("tensorrt", trt_fp16_enable=True, trt_engine_cache_path="{cache}", device_id=1)
    assert options["TensorrtExecutionProvider"]["trt_fp16_enable"] == "True"
    assert options["TensorrtExecutionProvider"]["trt_engine_cache_path"] == "{cache}", (
        "words in braces are replaced in the table's options only"
    )
    assert options["TensorrtExecutionProvider"]["device_id"] == "1"
    assert "device_id" not in options["CUDAExecutionProvider"]


def test_openvino_gets_the_threads():
    assert options_of("openvino")["OpenVINOExecutionProvider"]["num_of_threads"] == "3"


def test_the_table_and_the_registry_name_the_same_packages():
    assert {provider.distribution for provider in PROVIDERS.values()} == set(ENGINES["ort"].distributions)
    assert len({provider.name for provider in PROVIDERS.values()}) == len(PROVIDERS)
    assert {device for device, provider in PROVIDERS.items() if provider.status == "tested"} == {"cpu", "openvino"}


def test_options_are_read_from_a_file(tmp_path):
    file = tmp_path / "options.json"
    file.write_text('{"device_type": "GPU", "device_id": 1, "fast": true, "share": 0.5}')
    assert read_options(file) == {"device_type": "GPU", "device_id": 1, "fast": True, "share": 0.5}


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"a": null}', b'{"a": ["b"]}', b'{"a": {}}', b"\xff", b'"' + b"x" * MAX_OPTIONS_BYTES, b"[" * 9999]
)
def test_a_file_with_other_content_is_refused(tmp_path, content):
    file = tmp_path / "options.json"
    file.write_bytes(content)
    with pytest.raises(RequestError, match=re.escape(str(file))):
        read_options(file)


def test_a_missing_file_and_wrong_names_are_refused(tmp_path):
    with pytest.raises(RequestError, match=r"none\.json"):
        read_options(tmp_path / "none.json")
    with pytest.raises(RequestError, match="not: 1"):
        check_options({1: "a"})


@pytest.mark.parametrize("device", sorted(set(PROVIDERS) - {"cpu"}))
def test_the_error_of_a_missing_provider_lists_the_available_ones(tiny_artifacts, device):
    with pytest.raises(UnavailableError) as caught:
        runtimes.load(tiny_artifacts["onnx-fp32"], device=device, threads=1)
    message = str(caught.value)
    assert f"no {PROVIDERS[device].name} here; it has: " in message
    assert "CPUExecutionProvider" in message
    assert PROVIDERS[device].distribution in message


def test_a_provider_that_runs_no_node_is_an_error(tiny_artifacts, monkeypatch):
    """The Azure provider of the usual package supports no node. A graph must not silently run on the CPU."""
    azure = Provider(name="AzureExecutionProvider", distribution="onnxruntime", needs="a network", status="not run")
    monkeypatch.setitem(PROVIDERS, "azure", azure)
    monkeypatch.setattr("runtimes.loading.DEVICES", ("azure",))
    with pytest.raises(UnavailableError, match=r"AzureExecutionProvider runs no node of encoder.*CPUExecutionProvider"):
        runtimes.load(tiny_artifacts["onnx-fp32"], device="azure", threads=1)


def test_torch_runs_on_no_execution_provider(tiny_artifacts):
    for options in ({"device": "openvino"}, {"device": "cpu", "provider_options": {"a": 1}}):
        with pytest.raises(UnavailableError, match="run on cpu and cuda"):
            runtimes.load(tiny_artifacts["pytorch-fp32"], **options)


def test_options_need_a_device(tiny_artifacts):
    with pytest.raises(RequestError, match="name it"):
        runtimes.load(tiny_artifacts["onnx-fp32"], provider_options={"device_id": 1})


def test_an_old_onnxruntime_gives_one_warning(caplog):
    open_graph._warn_below_floor.cache_clear()
    for version in ("1.27.0", "1.24.1", "1.24.1", "2.0.0"):
        open_graph._warn_below_floor(version)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "onnxruntime 1.24.1 is below 1.27" in record.getMessage()


def test_the_floor_equals_that_in_pyproject():
    floor = ".".join(map(str, open_graph.FLOOR))
    text = (ROOT / "pyproject.toml").read_text()
    assert set(re.findall(r'"onnxruntime(?:-gpu)?>=([\d.]+),', text)) == {floor}


def test_the_command_line_accepts_every_device_and_options(tiny_artifacts, drawn_images, tmp_path):
    from click.testing import CliRunner

    from toolkit.cli import main

    options = tmp_path / "options.json"
    options.write_text(json.dumps({"device_type": "GPU"}))
    arguments = ["caption", str(tiny_artifacts["onnx-fp32"]), str(drawn_images[0].path), "--provider-options", str(options)]
    for device in sorted(set(PROVIDERS) - {"cpu"}):
        result = CliRunner().invoke(main, [*arguments, "--device", device])
        assert result.exit_code == 1
        assert PROVIDERS[device].name in result.stderr
        assert len(result.stderr.splitlines()) == 1
