"""`host`: facts from files of the kernel below a test root, and facts of this machine."""

import _ctypes
import math
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from runtimes.host.cgroups import memory_limit_bytes, quota_cores
from runtimes.host.facts import CUDA_DRIVERS, Host, gpu_name, memory_bytes, read_host, usable_cores, usable_cpus
from tests.paths import ROOT

ZEN = "fpu sse sse2 ssse3 fma sse4_2 popcnt avx f16c avx2 avx512f avx512dq avx512cd avx512bw avx512vl avx512_vnni avx512_bf16"
HASWELL = "fpu sse sse2 ssse3 fma sse4_2 popcnt avx f16c avx2 bmi2"
ALDER = "fpu sse4_2 avx avx2 fma avx_vnni"
SAPPHIRE = f"{ZEN} amx_bf16 amx_tile amx_int8"
KNIGHTS = "fpu avx avx2 avx512f avx512cd avx512er"
PI4 = "fp asimd evtstrm crc32 cpuid"
PI5 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
GRAVITON = f"{PI5} asimdfhm i8mm bf16 sve"


def machine(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def x86(flags, name="Some CPU"):
    blocks = (
        f"processor\t: {core}\nvendor_id\t: Some\nmodel name\t: {name}\nflags\t\t: {flags}\nbugs\t\t: spectre_v1\n" for core in (0, 1)
    )
    return "\n".join(blocks)


def arm(features):
    return "\n".join(f"processor\t: {core}\nBogoMIPS\t: 108.00\nFeatures\t: {features}\nCPU part\t: 0xd0b\n" for core in (0, 1))


@pytest.mark.parametrize(
    ("cpuinfo", "features"),
    [
        (x86(ZEN), {"avx2", "avx512", "vnni"}),
        (x86(HASWELL), {"avx2"}),
        (x86(ALDER), {"avx2", "vnni"}),
        (x86(SAPPHIRE), {"avx2", "avx512", "vnni", "amx"}),
        (x86(KNIGHTS), {"avx2"}),
        (x86("fpu avx512_vnni_like xavx2"), set()),
        (arm(PI4), set()),
        (arm(PI5), {"dotprod"}),
        (arm(GRAVITON), {"dotprod", "i8mm"}),
        ("", set()),
        ("no colon here\n: \n:::\n", set()),
    ],
    ids=["zen4", "haswell", "alder-lake", "sapphire-rapids", "knights-landing", "lookalikes", "pi4", "pi5", "graviton3", "empty", "odd"],
)
def test_cpu_features(tmp_path, cpuinfo, features):
    assert read_host(machine(tmp_path, {"proc/cpuinfo": cpuinfo})).cpu_features == frozenset(features)


def test_flags_are_those_of_the_first_processor(tmp_path):
    both = x86(HASWELL, "First") + "\n" + x86(ZEN, "Second")
    host = read_host(machine(tmp_path, {"proc/cpuinfo": both}))
    assert (host.cpu, host.cpu_features) == ("First", frozenset({"avx2"}))


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        (x86(ZEN, "AMD EPYC 9R14"), "AMD EPYC 9R14"),
        (arm(PI5) + "\n", platform.machine()),
        ("processor\t: 0\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n", "Raspberry Pi 5 Model B Rev 1.0"),
        ("processor\t: 0\nHardware\t: BCM2835\n", "BCM2835"),
        ("model name\t:\n", platform.machine()),
        (None, platform.machine()),
    ],
)
def test_the_name_of_the_cpu(tmp_path, cpuinfo, name):
    assert read_host(machine(tmp_path, {} if cpuinfo is None else {"proc/cpuinfo": cpuinfo})).cpu == name


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "1600000 100000\n"}, 16),
        ({"cpu.max": "200000 50000\n"}, 4),
        ({"cpu.max": "100000\n"}, None),
        ({"cpu.max": ""}, None),
        ({"cpu.max": "many few\n"}, None),
        ({"cpu.max": "100000 0\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "250000\n"}, None),
        ({"cpu.max": "max 100000\n", "cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu.max": "200000 100000\n", "cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
    ],
)
def test_the_quota_of_a_container(tmp_path, files, cores):
    root = machine(tmp_path, {f"sys/fs/cgroup/{name}": text for name, text in files.items()})
    assert quota_cores(root) == cores
    granted = len(os.sched_getaffinity(0))
    assert usable_cores(root) == usable_cpus(root) == min(granted, cores or granted)
    assert read_host(root).cores == usable_cores(root)


V2 = "0::/pod/box\n"
V1 = "9:name=systemd:/else\n4:cpu,cpuacct:/pod/box\n"
HIDDEN = "0::/../../pod\n"


def v1(group, quota):
    return {f"cpu/{group}cpu.cfs_quota_us": f"{quota}\n", f"cpu/{group}cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        (V2, {"pod/box/cpu.max": "300000 100000", "pod/cpu.max": "800000 100000"}, 3),
        (V2, {"pod/box/cpu.max": "max 100000", "pod/cpu.max": "200000 100000"}, 2),
        (V2, {"pod/box/cpu.max": "800000 100000", "pod/cpu.max": "150000 100000"}, 2),
        (V2, {"pod/box/cpu.max": "400000 100000", "cpu.max": "100000 100000"}, 1),
        (V2, {"pod/cpu.max": "200000 50000"}, 4),
        (V2, {"other/cpu.max": "100000 100000", "pod/box/in/cpu.max": "100000 100000"}, None),
        (V2, {"unified/pod/cpu.max": "300000 100000"}, 3),
        (HIDDEN, {"cpu.max": "300000 100000", "../pod/cpu.max": "100000 100000"}, 3),
        (V1, v1("pod/box/", 300000) | v1("pod/", 200000) | v1("", -1), 2),
        (V1, v1("pod/box/", 200000) | v1("", 700000), 2),
        ("4:cpu\n\n::\n", {"cpu.max": "300000 100000"}, 3),
        ("0::/a:b\n", {"a:b/cpu.max": "200000 100000"}, 2),
    ],
)
def test_the_tightest_quota_from_the_process_up_to_the_root(tmp_path, own, files, cores):
    root = machine(tmp_path, {"proc/self/cgroup": own} | {f"sys/fs/cgroup/{name}": text for name, text in files.items()})
    assert quota_cores(root) == cores


GIB = 1 << 30


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        ("", {}, None),
        ("", {"memory.max": "max"}, None),
        ("", {"memory.max": f"{2 * GIB}"}, 2 * GIB),
        ("", {"memory.max": "much"}, None),
        (V2, {"pod/box/memory.max": f"{3 * GIB}", "pod/memory.max": f"{2 * GIB}", "memory.max": "max"}, 2 * GIB),
        (V2, {"pod/box/memory.max": f"{GIB}", "pod/memory.max": f"{2 * GIB}"}, GIB),
        (V2, {"other/memory.max": f"{GIB}"}, None),
        (HIDDEN, {"memory.max": f"{GIB}", "../pod/memory.max": "1"}, GIB),
        ("5:memory:/pod/box\n", {"memory/memory.limit_in_bytes": "9223372036854771712"}, None),
        ("5:memory:/pod/box\n", {"memory/pod/memory.limit_in_bytes": f"{GIB}"}, GIB),
        (V1, {"memory/memory.limit_in_bytes": f"{GIB}", "memory/pod/box/memory.limit_in_bytes": "4096"}, GIB),
    ],
)
def test_the_memory_of_a_container(tmp_path, own, files, limit):
    root = machine(tmp_path, {"proc/self/cgroup": own} | {f"sys/fs/cgroup/{name}": text for name, text in files.items()})
    assert memory_limit_bytes(root) == limit


@pytest.mark.parametrize(
    ("meminfo", "total"),
    [
        ("MemTotal:        8049152 kB\nMemFree:          123 kB\n", 8_049_152 * 1024),
        ("MemFree: 123 kB\n", None),
        ("MemTotal: plenty kB\n", None),
        ("MemTotal:\n", None),
        (None, None),
    ],
)
def test_the_memory_of_the_machine(tmp_path, meminfo, total):
    """Without an entry in the kernel's file, the value of the C library is returned."""
    root = machine(tmp_path, {} if meminfo is None else {"proc/meminfo": meminfo})
    assert memory_bytes(root) == (total or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


@pytest.mark.parametrize(("siblings", "cores"), [("{}", 1.0), ("pairs", 0.5), (None, 1.0)], ids=["own core", "two a core", "unknown"])
def test_threads_that_share_a_core_count_once(tmp_path, siblings, cores):
    """Every two CPUs of this process's affinity share a core, or none do."""
    cpus = sorted(os.sched_getaffinity(0))
    shared = {cpu: siblings and (siblings.format(cpu) if "{" in siblings else f"{number // 2}") for number, cpu in enumerate(cpus)}
    topology = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    root = machine(tmp_path, {topology.format(cpu): f"{text}\n" for cpu, text in shared.items() if text})
    assert (usable_cores(root), usable_cpus(root)) == (math.ceil(len(cpus) * cores), len(cpus))


def test_affinity_bounds_the_cores(tmp_path):
    root = machine(tmp_path, {"sys/fs/cgroup/cpu.max": "6400000 100000\n"})
    (only, *_) = sorted(os.sched_getaffinity(0))
    bound = f"import os, sys; os.sched_setaffinity(0, {{{only}}}); sys.path.insert(0, {str(ROOT)!r})\n"
    script = f"from pathlib import Path; from runtimes.host.facts import usable_cores; print(usable_cores(Path({str(root)!r})))"
    assert subprocess.run([sys.executable, "-c", bound + script], capture_output=True, text=True, check=True).stdout == "1\n"


def test_a_gpu_is_one_whose_driver_library_can_be_loaded(tmp_path):
    """Any shared library can replace the driver's: it is loaded, not called. A file that is not a library is not a driver."""
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom runtimes.host.facts import read_host; print(read_host().cuda)"
    search = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    outputs = []
    for content in (None, b"no library", Path(_ctypes.__file__).read_bytes()):
        if content is not None:
            (tmp_path / CUDA_DRIVERS[0]).write_bytes(content)
        outputs.append(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=search).stdout)
    assert outputs[1:] == ["False\n", "True\n"]


def test_facts_are_not_cached(tmp_path):
    """A running service gets the new value when its quota changes."""
    seen = [read_host(machine(tmp_path, {"sys/fs/cgroup/cpu.max": f"{cores}00000 100000\n"})).cores for cores in (1, 2, 1)]
    assert seen == [1, min(2, usable_cores(tmp_path / "none")), 1]


def test_all_facts_of_a_machine(tmp_path):
    root = machine(tmp_path, {"proc/cpuinfo": x86(ZEN, "AMD EPYC"), "sys/fs/cgroup/cpu.max": "100000 100000"})
    assert read_host(root) == Host(
        cpu="AMD EPYC",
        machine=platform.machine(),
        cpu_features=frozenset({"avx2", "avx512", "vnni"}),
        cores=1,
        libraries=frozenset({"ort", "torch"}),  # the development environment has both
        cuda=read_host().cuda,
    )


@pytest.mark.parametrize(("gone", "left"), [(["torch"], ["ort"]), (["onnxruntime"], ["torch"]), (["torch", "onnxruntime"], [])])
def test_libraries_that_are_not_installed(gone, left):
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfor name in {gone!r}: sys.modules[name] = None\n"
    script += "from runtimes.host.facts import read_host; print(sorted(read_host().libraries))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == f"{left}\n"


def test_reading_facts_starts_no_subprocess(tmp_path):
    """On ARM the kernel has no name of the CPU, and `platform.processor()` would run `uname`."""
    root = machine(tmp_path, {"proc/cpuinfo": arm(PI5)})
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom pathlib import Path\nfrom runtimes.host.facts import read_host\nseen = []\n"
    )
    script += "sys.addaudithook(lambda event, _: seen.append(event) if event in ('subprocess.Popen', 'os.system', 'os.fork') else None)\n"
    script += f"read_host(Path({str(root)!r})); read_host(); print(seen)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({}, None),
        ({"0000:01:00.0/information": "Model: \t\t NVIDIA L4\nIRQ:   40\n", "0000:02:00.0/information": "Model: other\n"}, "NVIDIA L4"),
        ({"0000:01:00.0/information": "IRQ:   40\n"}, None),
    ],
)
def test_the_name_of_the_gpu(tmp_path, files, name):
    root = machine(tmp_path, {f"proc/driver/nvidia/gpus/{file}": text for file, text in files.items()})
    assert gpu_name(root) == name
