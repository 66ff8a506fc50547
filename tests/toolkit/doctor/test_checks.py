"""Findings of the doctor for engines, packages, the INT8 self-test and artifacts, and facts of machines given as files below a root."""

import tomllib
from dataclasses import replace
from itertools import chain

import pytest
from packaging.requirements import Requirement

from exporters.recipes import RECIPES
from runtimes.artifact.folder import Artifact
from runtimes.engines.offer import Int8SelfTest, Offer
from runtimes.host.facts import Host
from runtimes.selection.fitness import drop_incorrect
from runtimes.selection.ranking import rank_candidates
from tests.paths import ROOT
from tests.runtimes.host.test_facts import GRAVITON, HASWELL, PI4, ZEN, arm, machine, x86
from tests.runtimes.selection.test_ranking import manifest
from toolkit.doctor.checks import check_artifacts, check_engines, check_floors, check_int8_selftest, satisfies
from toolkit.doctor.engines import ProbedEngine
from toolkit.doctor.machine import MachineFacts, installed, read_machine, requirements

GIB = 1 << 30
RIGHT = Int8SelfTest(expected=100, actual=100)
SATURATED = Int8SelfTest(expected=100, actual=51)

MACHINE = MachineFacts(
    cpu="Some CPU", family="x86_64", features={"avx2": True, "vnni": False}, logical_cores=4, cores=2, quota_cores=None,
    memory_bytes=8 * GIB, memory_limit_bytes=None, nvidia_driver=False, system="Linux 6", python="3.11.7",
)  # fmt: skip

ORT = ProbedEngine(library="onnxruntime", offer=Offer(providers=("CPUExecutionProvider",), cuda=False, product=RIGHT), error=None)
TORCH = ProbedEngine(library="torch", offer=Offer(providers=("x86", "fbgemm"), cuda=False, product=None), error=None)
CRASHED = ProbedEngine(library="onnxruntime", offer=None, error="its process was ended by SIGILL")


def host(*features, libraries=("ort", "torch"), cuda=False):
    return Host(cpu="c", machine="m", cpu_features=frozenset(features), cores=2, libraries=frozenset(libraries), cuda=cuda)


def without_offer(engine, **changes):
    return replace(engine, offer=replace(engine.offer, **changes))


@pytest.mark.parametrize(
    ("driver", "engines", "expected"),
    [
        (False, {"ort": ORT}, []),
        (False, {"ort": ORT, "torch": TORCH}, []),
        (False, {}, ["problem no engine is installed, so no artifact can run here"]),
        (False, {"torch": TORCH}, ["warning onnxruntime, the faster engine, is not installed"]),
        (False, {"ort": CRASHED}, ["problem onnxruntime is installed and does not work: its process was ended by SIGILL"]),
        (
            False,
            {"ort": ORT, "torch": replace(CRASHED, library="torch")},
            ["warning torch is installed and does not work: its process was ended by SIGILL"],
        ),
        (
            False,
            {"ort": ORT, "torch": without_offer(TORCH, providers=())},
            ["warning torch has no quantized engine here, so its INT8 recipes cannot run"],
        ),
        (True, {"ort": ORT, "torch": TORCH}, ["note an NVIDIA driver is installed, but no engine here uses the GPU"]),
        (True, {"ort": without_offer(ORT, cuda=True)}, []),
        (True, {"ort": ORT, "torch": without_offer(TORCH, cuda=True)}, []),
    ],
)
def test_engines(driver, engines, expected):
    findings = check_engines(replace(MACHINE, nvidia_driver=driver), engines)
    assert [f"{finding.level} {finding.text}" for finding in findings] == expected
    assert all(finding.remedy for finding in findings)


REQUIREMENTS = ["pillow<14,>=12.2", "blip-toolkit[export]; extra == 'dev'", "nltk<4,>=3.9.1; extra == 'eval'", "click"]


@pytest.mark.parametrize(
    ("packages", "expected"),
    [
        ({"pillow": "12.2.0", "nltk": "3.9.1", "click": "0.1", "blip-toolkit": "0.1.0"}, []),
        ({"pillow": "12.1.1"}, [("warning", "pillow 12.1.1", "pip install 'pillow>=12.2'")]),
        ({"nltk": "3.8.2"}, [("warning", "nltk 3.8.2", "pip install 'nltk>=3.9.1'")]),
        ({"pillow": "14.0", "numpy": "1.0"}, []),
    ],
)
def test_a_package_below_its_lower_bound_is_a_warning(packages, expected):
    findings = check_floors(packages, REQUIREMENTS)
    assert [(finding.level, finding.text.partition(" is ")[0], finding.remedy) for finding in findings] == expected


def test_the_lower_bounds_are_those_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {Requirement(line).name for line in [*project["dependencies"], *chain(*project["optional-dependencies"].values())]}
    assert {Requirement(line).name for line in requirements()} <= declared
    assert {"pillow", "onnxruntime", "torch", "nltk"} <= {Requirement(line).name for line in requirements()}


@pytest.mark.parametrize(
    ("version", "ranges", "fits"),
    [
        ("2.13.0+cpu", ">=2.10,<2.14", True),
        ("2.14.0+cpu", ">=2.10,<2.14", False),
        ("1.21", ">=1.21.0", True),
        ("1.3", ">=1.21", False),
        ("2.10.0rc1", ">=2.9", True),
        ("1.0", "as you like", True),
        ("dev", ">=1", True),
    ],
)
def test_a_version_in_ranges(version, ranges, fits):
    assert satisfies(version, ranges) is fits


@pytest.mark.parametrize(
    ("features", "selftest", "expected"),
    [
        (("avx2", "vnni"), RIGHT, []),
        (("avx2",), None, []),
        (
            ("avx2",),
            SATURATED,
            ["note INT8 products of full range saturate here (51 instead of 100), as on every x86 CPU without VNNI"],
        ),
        (
            ("avx2", "vnni"),
            SATURATED,
            ["warning INT8 products of full range saturate here (51 instead of 100) although the CPU reports VNNI, as in an emulator"],
        ),
    ],
)
def test_the_int8_selftest(features, selftest, expected):
    assert [f"{finding.level} {finding.text}" for finding in check_int8_selftest(host(*features), selftest)] == expected


MANIFESTS = {recipe.name: manifest(recipe) for recipe in RECIPES}


def check(folder, names, here, product=RIGHT, packages=None, memory=None, **changes):
    """Return the findings for artifacts of these recipes, ranked as `load` does; each has a manifest of 1 MiB."""
    manifests = {name: replace(MANIFESTS[name], **changes) for name in names}
    for name in names:
        machine(folder, {f"{name}/manifest.json": "x" * (1 << 20)})
    chosen = rank_candidates(drop_incorrect(manifests, here, product), here)
    artifacts = [Artifact(folder / name, manifest) for name, manifest in manifests.items()]
    findings = check_artifacts(artifacts, chosen, here, replace(MACHINE, memory_limit_bytes=memory), packages or {}, product)
    return [f"{finding.level} {finding.text}" for finding in findings]


TUNED = "onnx-int8-full is tuned for CPUs with vnni or dotprod, which this one lacks"
WRONG = "integer products saturate here (51 where 100 is right): its captions may be wrong here"


@pytest.mark.parametrize(
    ("names", "here", "options", "expected"),
    [
        (["onnx-int8"], host("avx2"), {"product": SATURATED}, []),
        (["onnx-int8-full"], host("avx2", "vnni"), {}, []),
        (["onnx-int8-full"], host("avx2"), {"product": SATURATED}, [f"problem {TUNED}; {WRONG}"]),
        (
            ["onnx-int8-full"],
            host("avx2", "vnni"),
            {"product": SATURATED},
            [f"problem onnx-int8-full has weights of full range, and {WRONG}"],
        ),
        (["onnx-int8-full"], host("dotprod"), {}, []),
        (["onnx-int8-full"], host("avx2"), {}, [f"warning {TUNED}; its products are right here, but may be slow"]),
        (["onnx-int8-full", "onnx-int8"], host("avx2"), {"product": SATURATED}, [f"note {TUNED}; {WRONG}"]),
        (["onnx-int8"], host(libraries=("torch",)), {}, ["problem onnx-int8 needs onnxruntime, which is not installed or does not work"]),
        (
            ["onnx-int8", "pytorch-int8"],
            host(libraries=("torch",)),
            {},
            ["note onnx-int8 needs onnxruntime, which is not installed or does not work"],
        ),
        (
            ["onnx-int8", "onnx-fp32"],
            host(libraries=("torch",)),
            {},
            [
                "problem none of these artifacts can run here",
                "problem onnx-int8 needs onnxruntime, which is not installed or does not work",
                "problem onnx-fp32 needs onnxruntime, which is not installed or does not work",
            ],
        ),
        (["onnx-fp16"], host(), {}, ["warning onnx-fp16 targets a GPU, and this machine has none; it is slow on the CPU"]),
        (["onnx-fp16"], host(cuda=True), {}, []),
        (
            ["onnx-int8"],
            host(),
            {"requires": {"onnxruntime": ">=1.27"}, "packages": {"onnxruntime": "1.26.3"}},
            ["problem onnx-int8 needs onnxruntime >=1.27, but 1.26.3 is installed"],
        ),
        (["onnx-int8"], host(), {"requires": {"onnxruntime": ">=1.27"}, "packages": {"onnxruntime-gpu": "1.27.1"}}, []),
        (
            ["pytorch-int8"],
            host(),
            {"requires": {"torch": ">=2.10,<2.14"}, "packages": {"torch": "2.14.0+cpu"}},
            ["problem pytorch-int8 needs torch >=2.10,<2.14, but 2.14.0+cpu is installed"],
        ),
        (
            ["onnx-int8"],
            host(),
            {"memory": 1 << 19},
            ["problem onnx-int8 has 1 MiB of files; this process may use 0 MiB of memory"],
        ),
    ],
)
def test_artifacts(tmp_path, names, here, options, expected):
    assert check(tmp_path, names, here, **options) == expected


def test_a_machine_is_read_below_a_root(tmp_path):
    root = machine(
        tmp_path,
        {
            "proc/cpuinfo": x86(ZEN, "AMD EPYC"),
            "proc/meminfo": f"MemTotal: {8 << 20} kB\n",
            "sys/fs/cgroup/memory.max": str(2 * GIB),
            "sys/fs/cgroup/cpu.max": "100000 100000",
        },
    )
    facts = read_machine(root)
    assert (facts.cpu, facts.quota_cores, facts.cores) == ("AMD EPYC", 1, 1)
    assert (facts.memory_bytes, facts.memory_limit_bytes) == (8 * GIB, 2 * GIB)


@pytest.mark.parametrize(
    ("cpuinfo", "reported"),
    [(x86(ZEN), {"avx2", "avx512", "vnni"}), (x86(HASWELL), {"avx2"}), (arm(GRAVITON), {"dotprod", "i8mm"}), (arm(PI4), set())],
)
def test_present_and_absent_features_are_named(tmp_path, cpuinfo, reported):
    features = read_machine(machine(tmp_path, {"proc/cpuinfo": cpuinfo})).features
    assert {name for name, present in features.items() if present} == reported
    assert {"avx2", "avx512", "vnni", "amx"} <= set(features) or {"dotprod", "i8mm"} <= set(features)


def test_packages_are_those_of_this_environment():
    import numpy
    import PIL

    versions = installed()
    assert (versions["numpy"], versions["pillow"]) == (numpy.__version__, PIL.__version__)
    assert "openvino" not in versions
