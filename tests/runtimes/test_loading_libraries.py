"""`load` with a missing or broken library."""

from tests.runtimes.test_loading import python

WITHOUT = "for name in {names!r}: sys.modules[name] = None\n"
"""Simulates libraries that are not installed."""

BROKEN = """
import importlib.abc, importlib.machinery

class Broken(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name == {name!r} else None

    def create_module(self, spec):
        raise ImportError("libgomp.so.1: cannot open shared object file: No such file or directory")

    def exec_module(self, module):
        raise AssertionError

sys.meta_path.insert(0, Broken())
"""
"""Simulates a library that is installed and links to a missing one, as in slim containers."""


def test_a_missing_library_is_one_warning_and_the_next_best_artifact_is_loaded(folder):
    path = folder("onnx-int8", "onnx-fp32", "pytorch-int8", "pytorch-fp32")
    show = "show(sys.argv[1])"
    assert python(WITHOUT.format(names=["onnxruntime"]) + show, path) == [
        "WARNING onnxruntime is needed for onnx-int8 (runtime 'ort'): pip install 'blip-toolkit[ort]'; trying the next best",
        "INFO using pytorch-int8: INT8 that is correct on every CPU",
        "loaded pytorch-int8",
    ]
    assert python(WITHOUT.format(names=["torch"]) + show, path) == [
        "INFO using onnx-int8: INT8 that is correct on every CPU",  # no warning: torch was not needed for the best one
        "loaded onnx-int8",
    ]
    assert python(WITHOUT.format(names=["onnxruntime", "torch"]) + show, path) == [
        "WARNING onnxruntime is needed for onnx-int8 (runtime 'ort'): pip install 'blip-toolkit[ort]'; trying the next best",
        f"UnavailableError {path}: none of onnx-fp32, onnx-int8, pytorch-fp32, pytorch-int8 can run here with device 'auto'",
    ]


def test_a_missing_library_of_a_named_artifact(tiny_artifacts):
    onnx, torch = tiny_artifacts["onnx-int8"], tiny_artifacts["pytorch-int8"]
    show = "for path in sys.argv[1:]: show(path)"
    assert python(WITHOUT.format(names=["onnxruntime", "torch"]) + show, onnx, torch) == [
        f"MissingDependencyError onnxruntime is needed for {onnx.name} (runtime 'ort'): pip install 'blip-toolkit[ort]'",
        f"MissingDependencyError torch is needed for {torch.name} (runtime 'torch'): pip install 'blip-toolkit[torch]'",
    ]


def test_a_broken_library(tiny_artifacts, folder):
    reason = "onnxruntime is installed but cannot be imported: libgomp.so.1: cannot open shared object file: No such file or directory"
    path = folder("onnx-int8", "pytorch-fp32")
    assert python(BROKEN.format(name="onnxruntime") + "for path in sys.argv[1:]: show(path)", tiny_artifacts["onnx-int8"], path) == [
        f"UnavailableError {reason}",
        f"WARNING onnx-int8: {reason}; trying the next best",
        "INFO using pytorch-fp32: FP32, as there is no INT8 or INT4 artifact that this machine can run",
        "loaded pytorch-fp32",
    ]
