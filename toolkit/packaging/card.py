"""Write the model card of a package (its README.md) from the manifest: model, recipe, usage, limits and licences."""

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from exporters.gate.findings import card_text
from runtimes.artifact.manifest import Manifest
from runtimes.errors import RecordError
from toolkit.packaging.goldens import IMAGES
from toolkit.records.record_file import read_records
from toolkit.stats.rows import check_comparable
from toolkit.tables.render import render_markdown

CARD, CARD_ROLE = "README.md", "card"

CARD_TEXT = """\
# {name}

{description} Exported from `{model}`{revision} by blip-toolkit {toolkit}
with the recipe `{recipe}`: {why}

| | |
|---|---|
| runtime | {runtime}, {requires} |
| target | {device}{features} |
| weights | {precision}; quantized: {applied} |
| image | {image_px} px square, {resample}; {tokens} vision tokens |
| size | {megabytes:.1f} MB |
| checked at export | {gate} |
| checkpoint | sha256 `{checkpoint}` |

## Use

```sh
{install}toolkit verify .          # once, on the machine that will run it
{command}
```

```python
{python}
```

{measured}## Limits

- {limit}
- {quantized}
- `toolkit verify` compares the {noun} of {images} with those of the packaging machine (golden {noun}). Equal {noun} prove that
  both machines compute the same; they do not prove that {noun} are good.{approximate}

## Licences

Checkpoint: {licence}. Code of blip-toolkit: Apache-2.0. Golden images: {credits}.
"""


@dataclass(frozen=True, kw_only=True)
class CardWords:
    """The words of a model card that depend on the task."""

    description: str
    command: str
    python: str
    limit: str
    noun: str
    """The results, in the plural."""
    exact: str
    """What is true of an FP32 artifact."""
    quantized: str
    """What is true of other artifacts."""


WORDS = {
    "caption": CardWords(
        description="A BLIP image captioner: it describes an image with one English sentence.",
        command="toolkit caption . photo.jpg",
        python="""from runtimes import load

captioner = load(".")
print(captioner.caption("photo.jpg")[0].text)""",
        limit="Captions are likely, not certain: counts, colours, text and names are often wrong. They repeat the biases of the training "
        "data.",
        noun="captions",
        exact="Its captions equal the checkpoint's, token for token, on the images of the export gate.",
        quantized="Its captions may differ from the checkpoint's in some words, and slightly between batch sizes and CPU types.",
    ),
    "vqa": CardWords(
        description="A BLIP model that answers English questions about an image.",
        command="toolkit ask . photo.jpg --question 'What is in the picture?'",
        python="""from runtimes import load

answerer = load(".", task="vqa")
print(answerer.answer("photo.jpg", "What is in the picture?")[0].text)""",
        limit="Answers are likely, not certain: counts, colours, text and names are often wrong. They repeat the biases of the training "
        "data.",
        noun="answers",
        exact="Its answers equal the checkpoint's, token for token, on the questions of the export gate.",
        quantized="Its answers may differ from the checkpoint's, and slightly between CPU types.",
    ),
    "matching": CardWords(
        description="A BLIP image-text matcher: it compares images with English texts, and embeds both for search.",
        command="toolkit match . photo.jpg --text 'a dog on a beach'",
        python="""from runtimes import load

matcher = load(".", task="matching")
print(matcher.match("photo.jpg", ["a dog on a beach", "a plate of food"]))""",
        limit="Probabilities are not calibrated: use them to rank. They repeat the biases of the training data.",
        noun="scores",
        exact="Its scores equal the checkpoint's within 0.0001 on the images of the export gate.",
        quantized="Its scores differ from the checkpoint's, and slightly between CPU types. Do not mix embeddings of different artifacts.",
    ),
}
"""Task of a manifest → words."""


def card(manifest: Manifest, measured: str | None, *, offline: bool) -> str:
    """Return the text of README.md.

    Args:
        manifest: Manifest of the artifact, without the files of the package.
        measured: Markdown table of benchmark results, or None.
        offline: Whether the package contains wheels.
    """
    recipe, gate, words = manifest.recipe, manifest.gate, WORDS[manifest.task]
    entries = {
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
        gate=card_text(manifest.task, gate),
        checkpoint=manifest.source.sha256,
        install="pip install --no-index --find-links . --require-hashes -r requirements.txt   # uses only files of this folder\n"
        if offline
        else "",
        measured=f"## Measured\n\n{measured}\n" if measured else "",
        quantized=words.exact if manifest.target.precision == "fp32" else words.quantized,
        description=words.description,
        command=words.command,
        python=words.python,
        limit=words.limit,
        noun=words.noun,
        images=", ".join(IMAGES),
        approximate="\n- It is approximate: its input images are smaller than those of the checkpoint."
        if manifest.target.approximate
        else "",
        licence=manifest.source.licence or "not stated in the checkpoint; ask its authors before you redistribute it",
        credits=", ".join(f"{name} by {entries[name]['author']} ({entries[name]['licence']})" for name in IMAGES),
    )


def measured_table(path: Path, manifest: Manifest) -> str:
    """Return the Markdown table of an artifact's benchmark records, with the baseline.

    Raises:
        RecordError: The file cannot be read, or has no record of this artifact.
    """
    records = read_records(path)
    check_comparable(records, str(path))
    relevant = [record for record in records if record.subject and record.subject.manifest_digest in (manifest.digest, None)]
    if not any(record.subject and record.subject.manifest_digest for record in relevant):
        raise RecordError(str(path), f"has no record of {manifest.name} (digest {manifest.digest[:12]}…); run toolkit bench on it")
    return render_markdown(relevant)
