"""The model card of a package: its manifest goes in; README.md comes out: what it is, how it was made, how to run it, what it cannot do."""

import json
from importlib import resources
from pathlib import Path

from runtimes.artifact.manifest import Manifest
from runtimes.errors import RecordError
from toolkit.packaging.goldens import IMAGES
from toolkit.records.record import read_records
from toolkit.stats.rows import check_comparable
from toolkit.tables.render import render_markdown

CARD, CARD_ROLE = "README.md", "card"

CARD_TEXT = """\
# {name}

A BLIP image captioner: an image goes in, an English sentence comes out. Made from `{model}`{revision} by blip-toolkit {toolkit}
with the recipe `{recipe}`: {why}

| | |
|---|---|
| runtime | {runtime}, {requires} |
| meant for | {device}{features} |
| weights | {precision}; quantized: {applied} |
| image | {image_px} px square, {resample}; {tokens} vision tokens |
| size | {megabytes:.1f} MB |
| checked at export | {gate} |
| checkpoint | sha256 `{checkpoint}` |

## Use

```sh
{install}toolkit verify .          # on the machine where it is to run, once
toolkit caption . photo.jpg
```

```python
from runtimes import load

captioner = load(".")
print(captioner.caption("photo.jpg")[0].text)
```

{measured}## Limits

- It says what is likely, not what is true: counts, colours, text and names are often wrong, and it repeats the biases of what it was
  trained on.
- {quantized}
- `toolkit verify` compares golden captions: {images}. They prove that a machine computes what the packaging machine did, not that
  captions are good.{approximate}

## Licences

Checkpoint: {licence}. Code of blip-toolkit: Apache-2.0. Golden images: {credits}.
"""


def card(manifest: Manifest, measured: str | None, *, offline: bool) -> str:
    """Return the text of README.md."""
    recipe, gate = manifest.recipe, manifest.gate
    listed = {
        entry["file"]: entry for entry in json.loads(resources.files("toolkit.sample").joinpath("captions.json").read_bytes())["images"]
    }
    applied = ", ".join(f"{count} {kind} ({part})" for part, kinds in manifest.applied.items() for kind, count in kinds.items())
    return CARD_TEXT.format(
        name=manifest.name,
        model=manifest.source.model,
        revision=f" at {manifest.source.revision}" if manifest.source.revision else "",
        toolkit=manifest.toolkit,
        recipe=recipe.get("name"),
        why=recipe.get("why"),
        runtime=manifest.runtime,
        requires=", ".join(f"{library} {versions}" for library, versions in manifest.requires.items()),
        device=manifest.target.device,
        features=f" with {' or '.join(manifest.target.cpu_features)}" if manifest.target.cpu_features else "",
        precision=manifest.target.precision,
        applied=applied or "nothing",
        image_px=manifest.image.width_px,
        resample=manifest.image.resample,
        tokens=manifest.model.vision_tokens,
        megabytes=sum(entry.bytes for entry in manifest.files.values()) / 1e6,
        gate=_gate(gate),
        checkpoint=manifest.source.sha256,
        install="pip install --no-index --find-links . --require-hashes -r requirements.txt   # from this folder alone\n"
        if offline
        else "",
        measured=f"## Measured\n\n{measured}\n" if measured else "",
        quantized="Its captions may differ in words from the checkpoint's, and a little between batch sizes and kinds of CPU."
        if manifest.target.precision != "fp32"
        else "Its captions are the checkpoint's, token for token, on the images it was checked with.",
        images=", ".join(IMAGES),
        approximate="\n- It is approximate: it sees smaller images than the checkpoint was made for."
        if manifest.target.approximate
        else "",
        licence=manifest.source.licence or "not stated where it came from; ask those who made it before you pass it on",
        credits=", ".join(f"{name} by {listed[name]['author']} ({listed[name]['licence']})" for name in IMAGES),
    )


def measured_table(path: Path, manifest: Manifest) -> str:
    """Return the table of benchmark records for the card.

    Raises:
        RecordError: They cannot be read, or are not of this artifact.
    """
    records = read_records(path)
    check_comparable(records, str(path))
    ours = [record for record in records if record.subject and record.subject.manifest_digest in (manifest.digest, None)]
    if not any(record.subject and record.subject.manifest_digest for record in ours):
        raise RecordError(str(path), f"holds no records of {manifest.name} (digest {manifest.digest[:12]}…); run toolkit bench on it")
    return render_markdown(ours)


def _gate(gate: dict[str, object]) -> str:
    """Say what the export's gate found; an artifact may carry none."""
    if "drift_nat_per_token" not in gate:
        return "not recorded"
    verdict = "passed" if gate["passed"] else f"not passed: {gate['problem']}"
    return (
        f"{verdict}; {gate['exact_captions']} of {gate['images']} captions equal {gate['reference']}, "
        f"drift {gate['drift_nat_per_token']:+.4f} nat/token"
    )
