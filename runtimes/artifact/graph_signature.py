"""What the graphs of contracts `split/1` and `single/1` take and give: the sizes of a model go in, types and axes by name come out.

H heads, Dh width of a head, S pixels, V vocabulary are fixed by the model; axes with names may have any size.
"""

from collections.abc import Mapping

from runtimes.artifact.manifest import Manifest

IDS = "int64"

SPLIT, SINGLE = "split/1", "single/1"
"""An encoder and a decoder that a runtime calls token by token; one graph that holds the whole loop."""


def graph_values(manifest: Manifest) -> dict[str, tuple[dict[str, str], dict[str, str]]]:
    """Return role → inputs and outputs that its graph has, in the spelling of `GraphSpec`."""
    shape = manifest.architecture
    pixels = {"pixels": f"float32[images,3,{shape.image_px},{shape.image_px}]"}
    if manifest.contract == SINGLE:
        lengths = dict.fromkeys(("min_length", "max_length"), f"{IDS}[]")
        return {
            "captioner": (
                {**pixels, "prompt_ids": f"{IDS}[prompt]", **lengths},
                {"token_ids": f"{IDS}[images,length]", "log_probabilities": "float32[images]"},
            )
        }
    kind = "float16" if manifest.target.precision == "fp16" else "float32"

    def cached(prefix: str, rows: str, tokens: str) -> dict[str, str]:
        axes = f"{kind}[{rows},{shape.text_heads},{tokens},{shape.head_width}]"
        return {f"{prefix}_{name}_{layer}": axes for layer in range(shape.text_layers) for name in ("key", "value")}

    cross = cached("cross", "images", "vision_tokens")
    return {
        "encoder": (pixels, cross),
        "decoder": (
            {"token_ids": f"{IDS}[rows,new]", "positions": f"{IDS}[positions]", **cached("past", "rows", "past"), **cross},
            {"logits": f"float32[rows,positions,{shape.vocabulary}]", **cached("present", "rows", "past_and_new")},
        ),
    }


def misfit(found: Mapping[str, str], wanted: Mapping[str, str]) -> str | None:
    """Return what is wrong with a graph's inputs or outputs, or None. An output's axis may be one that the graph only computes."""
    if list(found) != list(wanted):
        return f"{', '.join(found)} instead of {', '.join(wanted)}"
    for name, value in found.items():
        kind, axes = _parts(value)
        wanted_kind, wanted_axes = _parts(wanted[name])
        fits = kind == wanted_kind and len(axes) == len(wanted_axes)
        if not fits or any(a.isdigit() and a != b for a, b in zip(axes, wanted_axes, strict=True)):
            return f"{name}: {value} instead of {wanted[name]}"
    return None


def _parts(value: str) -> tuple[str, list[str]]:
    kind, _, axes = value.removesuffix("]").partition("[")
    return kind, axes.split(",") if axes else []
