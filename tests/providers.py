"""`python -m tests.providers ARTIFACT`: caption the sample images on the CPU and on OpenVINO, and print what ran as a table.

Needs the package without extras and `onnxruntime-openvino`, so `make check-providers` has an environment of its own. Each device runs in a
fresh process. Exit code 1 if a caption differs or another provider ran.
"""

import json
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

DEVICES = ("cpu", "openvino")
COLUMNS = ("device", "provider that ran", "its nodes (encoder, decoder)", "load s", "first s", "s/image", "peak MB", "equal captions")
IMAGES = Path(__file__).resolve().parents[1] / "toolkit" / "sample"


def measure(artifact: str, device: str) -> dict[str, object]:
    """Caption in this process; return captions, providers, seconds per image and peak memory."""
    import resource

    import onnxruntime

    import runtimes

    images = sorted(IMAGES.glob("*.jpg"))
    begun = time.perf_counter()
    captioner = runtimes.load(artifact, device=device)
    loaded = time.perf_counter()
    captioner.caption(images[:1])
    warm = time.perf_counter()
    captions = captioner.caption(images)
    seconds = (time.perf_counter() - warm) / len(images)
    nodes = {
        role: {part.ep_name: len(part.get_nodes()) for part in session.get_provider_graph_assignment_info()} if device != "cpu" else {}
        for role, session in captioner.session._engine._sessions.items()
    }
    return {
        "onnxruntime": onnxruntime.__version__,
        "providers": captioner.session.info().providers,
        "nodes": nodes,
        "load_s": loaded - begun,
        "first_s": warm - loaded,
        "seconds": seconds,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "captions": [caption.text for caption in captions],
        "token_ids": [caption.token_ids for caption in captions],
    }


def main(artifact: str) -> int:
    """Run each device and compare."""
    results: dict[str, Any] = {}
    for device in DEVICES:
        command = [sys.executable, "-m", "tests.providers", artifact, device]
        ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if ran.returncode:
            return ran.returncode
        results[device] = json.loads(ran.stdout)
    first, rows, right = results[DEVICES[0]], [COLUMNS], True
    images = len(first["token_ids"])
    for device, result in results.items():
        equal = sum(a == b for a, b in zip(result["token_ids"], first["token_ids"], strict=True))
        provider = result["providers"][0]
        shares = [f"{used.get(provider, 0)} of {sum(used.values())}" if used else "all" for used in result["nodes"].values()]
        times = (f"{result['load_s']:.2f}", f"{result['first_s']:.2f}", f"{result['seconds']:.3f}", f"{result['peak_mb']:.0f}")
        rows.append((device, provider, ", ".join(shares), *times, f"{equal} of {images}"))
        right = right and equal == images and provider.lower().startswith(device)
    packages = ", ".join(metadata.packages_distributions()["onnxruntime"])
    print(f"{Path(artifact).name}, {images} images, {packages} {first['onnxruntime']}\n")
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in [rows[0], tuple("-" * width for width in widths), *rows[1:]]:
        print(f"| {' | '.join(f'{cell:<{width}}' for cell, width in zip(row, widths, strict=True))} |")
    return 0 if right else 1


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(measure(*sys.argv[1:])))
    else:
        sys.exit(main(*sys.argv[1:]))
