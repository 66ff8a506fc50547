"""`manifest.json`: reading and writing a real one changes nothing, and every problem is a named error with its position."""

import hashlib
import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from runtimes.artifact.generation import GenerationConfig
from runtimes.artifact.manifest import (
    MAX_MANIFEST_BYTES,
    SCHEMA,
    FileEntry,
    GraphSpec,
    ImageSpec,
    Manifest,
    Source,
    Target,
    TokenizerSpec,
    read_manifest,
)
from runtimes.errors import ManifestError, ManifestTooOldError, ManifestVersionError
from runtimes.families.blip import BlipSpec

NAMED = re.compile(
    "expected|missing|unknown|not one of|newer|older|plain name|must|not 1 to|out of range|not in the|the model takes|same role|defaults|"
    "not known"
)


def small_manifest(**changes):
    fields = {
        "schema": SCHEMA,
        "name": "blip-tiny-onnx-int8",
        "task": "caption",
        "family": "blip",
        "runtime": "ort",
        "contract": "split/1",
        "toolkit": "0.1.0",
        "source": Source(model="blip-tiny", revision=None, sha256="ab" * 32),
        "recipe": {"name": "onnx-int8", "why": "Näher dran"},
        "applied": {"encoder": {"MatMul": 12}},
        "target": Target(device="cpu", precision="int8", cpu_features=("vnni",)),
        "model": BlipSpec(
            image_px=32,
            patch_px=16,
            vision_width=32,
            vision_inner=64,
            vision_layers=2,
            vision_heads=4,
            vision_activation="gelu",
            vision_norm_eps=1e-05,
            text_width=32,
            text_inner=64,
            text_layers=2,
            text_heads=4,
            text_activation="gelu",
            text_norm_eps=1e-12,
            vocabulary=64,
            max_positions=32,
        ),
        "image": ImageSpec(
            height_px=32, width_px=32, resample="bicubic", mean=(0.48145466, 0.4578275, 0.5), std=(0.26862954, 0.1, 0.3), rescale=1 / 255
        ),
        "tokenizer": TokenizerSpec(bos_id=62, eos_id=3, pad_id=0),
        "defaults": GenerationConfig(),
        "graphs": {
            "encoder": GraphSpec(
                inputs={"pixels": "float32[images,3,32,32]"},
                outputs={"cross_key_0": "float32[images,4,vision_tokens,8]"},
                operators={"ai.onnx": {"MatMul": 12}},
                opsets={"ai.onnx": 17},
            )
        },
        "files": {"encoder-3fa9c1d2.onnx": FileEntry(role="encoder", bytes=12, sha256="cd" * 32)},
        "requires": {"onnxruntime": ">=1.24.3"},
        "gate": {"drift": 0.0030000000000000005, "passed": True, "problem": None},
    }
    return Manifest(**{**fields, **changes})


@pytest.fixture
def written(tmp_path):
    """A function that writes a manifest (bytes, text or JSON values) and returns its path."""

    def write(content):
        path = tmp_path / "manifest.json"
        if not isinstance(content, bytes | str):
            content = json.dumps(content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture
def plain():
    """A small manifest as JSON values that a test may spoil."""
    return json.loads(small_manifest().content)


def problems(path):
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert text.endswith(". Export or copy the artifact again.")
    assert text.isprintable()
    return text.removeprefix(f"{path}: ").removesuffix(". Export or copy the artifact again.").split("; ")


def test_real_manifests_go_round(tiny_artifacts, tmp_path):
    for recipe, artifact in tiny_artifacts.items():
        content = (artifact / "manifest.json").read_bytes()
        manifest = read_manifest(artifact / "manifest.json")
        assert manifest.recipe["name"] == recipe
        assert manifest.content == content
        assert manifest.digest == hashlib.sha256(content).hexdigest()
        assert replace(manifest).content == content  # as it is written, not as it was read
        (tmp_path / "manifest.json").write_bytes(json.dumps(json.loads(content), sort_keys=True, indent=4).encode())
        other = read_manifest(tmp_path / "manifest.json")
        assert other == manifest  # the layout of the text does not matter, but to the digest
        assert other.digest != manifest.digest


def test_a_small_manifest_goes_round(written):
    manifest = small_manifest()
    assert read_manifest(written(manifest.content)) == manifest
    assert manifest.model.vision_tokens == 5
    assert manifest.model.head_width == 8
    assert manifest.file_of("encoder") == "encoder-3fa9c1d2.onnx"


def test_the_digest_is_what_sha256sum_prints(written):
    content = small_manifest().content.replace(b"1e-05", b"0.00001")  # another spelling than Python's own
    path = written(content)
    manifest = read_manifest(path)
    assert manifest == small_manifest()
    assert subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[0] == manifest.digest
    assert manifest.content == content
    changed = replace(manifest, name="x")
    assert json.loads(changed.content)["name"] == "x"
    assert changed.digest == hashlib.sha256(changed.content).hexdigest()
    assert len({manifest.digest, changed.digest, small_manifest().digest}) == 3


def test_optional_accepts_any_json(written, plain):
    plain["optional"] = {"draft": {"of": "a newer toolkit"}, "deep": [[None, 1.5]]}
    plain["files"]["README.md"] = {"role": "card", "bytes": 1, "sha256": "ab" * 32, "optional": True}
    manifest = read_manifest(written(plain))
    assert manifest.optional == plain["optional"]
    assert [entry.optional for entry in manifest.files.values()] == [False, True]
    del plain["optional"]
    assert read_manifest(written(plain)).optional == {}


def test_an_unknown_family_is_reported_with_the_known_ones(written, plain):
    known = "known: blip caption, blip vqa, blip matching"
    plain |= {"family": "git", "model": {"layers": 3}}
    assert problems(written(plain)) == ["manifest: family 'git' with task 'caption' is not known", known]
    plain |= {"family": "blip", "task": "segmentation"}
    assert problems(written(plain)) == ["manifest: family 'blip' with task 'segmentation' is not known", known]


@pytest.mark.parametrize("template", ["", "[BOS]", "{text} {text}", "[BOS] {text} [SEP]", "{text}[EOS]"])
def test_an_invalid_template_is_refused(written, plain, template):
    plain["tokenizer"]["template"] = template
    assert problems(written(plain)) == ["tokenizer: template must contain {text} once and otherwise only [BOS], [EOS], [PAD]"]


def test_all_problems_are_named_at_once(written, plain):
    del plain["contract"]
    del plain["image"]["mean"]
    plain["colour"] = "red"
    plain["source"]["sha265"] = "x"
    plain["schema"] = True
    plain["target"]["precision"] = "int3"
    plain["target"]["cpu_features"] = ["vnni", 7]
    plain["model"]["vision_heads"] = 4.0
    plain["model"]["text_norm_eps"] = "small"
    plain["image"]["std"] = [0.1, 0.2]
    plain["tokenizer"] = [62, 3, 0]
    plain["files"]["encoder-3fa9c1d2.onnx"]["bytes"] = None
    plain["applied"]["encoder"]["MatMul"] = "12"
    plain["requires"] = None
    known = (
        "schema, name, task, family, runtime, contract, toolkit, source, recipe, applied, target, model, image, tokenizer, defaults, "
        "graphs, files, requires, gate, optional"
    )
    assert sorted(problems(written(plain))) == sorted(
        [
            "unknown manifest field(s) colour",
            f"known: {known}",
            "missing contract",
            "schema: expected int, got bool",
            "unknown source field(s) source.sha265",
            "known: model, revision, sha256, licence",
            "applied.encoder.MatMul: expected int, got str",
            "target.precision: 'int3' is not one of 'fp32', 'fp16', 'int8', 'int4'",
            "target.cpu_features[1]: expected str, got int",
            "model.vision_heads: expected int, got float",
            "model.text_norm_eps: expected float, got str",
            "missing image.mean",
            "image.std: expected a list of 3, got list",
            "tokenizer: expected an object, got list",
            "files.encoder-3fa9c1d2.onnx.bytes: expected int, got NoneType",
            "requires: expected an object, got NoneType",
        ]
    )


def test_every_missing_field_is_named(written, plain):
    for name in set(plain) - {"optional"}:
        assert problems(written({key: value for key, value in plain.items() if key != name})) == [f"missing {name}"]


@pytest.mark.parametrize("schema", [SCHEMA + 1, 999])
def test_a_newer_schema_names_both(written, plain, schema):
    path = written({"schema": schema, "whatever": ["a", "newer", "toolkit", "means"]})
    with pytest.raises(ManifestVersionError) as caught:
        read_manifest(path)
    assert str(caught.value) == (
        f"{path}: manifest schema {schema} is newer than {SCHEMA}, the newest that this toolkit reads. Update blip-toolkit."
    )


@pytest.mark.parametrize("schema", [1, 0, -1])
def test_an_older_schema_says_to_export_again(written, schema):
    path = written({"schema": schema, "digest": "x", "architecture": {}})
    with pytest.raises(ManifestTooOldError, match=f"schema {schema} is older than {SCHEMA}.* Export the artifact again with"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "not JSON (Expecting value: line 1 column 1 (char 0))"),
        (b"[]", "document: expected an object, got list"),
        (b"null", "document: expected an object, got NoneType"),
        (b'"manifest"', "document: expected an object, got str"),
        (b"1", "document: expected an object, got int"),
        (b'{"schema": 1, "schema": 1}', "not JSON (an object has a duplicate key)"),
        (b'{"a": {"b": {"c": 1, "d": 2, "c": 3}}}', "not JSON (an object has a duplicate key)"),
        (b"\xff\xfe\xfd", "not JSON"),
        (b'{"a": "\xff"}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "not JSON"),
        (b" " * (MAX_MANIFEST_BYTES + 1), f"larger than {MAX_MANIFEST_BYTES} bytes"),
    ],
)
def test_invalid_content(written, content, problem):
    (reported,) = problems(written(content))
    assert reported == problem or (problem == "not JSON" and reported.startswith("not JSON ("))


@pytest.mark.parametrize("depth", [*range(100, 1200, 20)])
def test_a_deep_value_is_read_or_refused(written, plain, depth):
    """The limit of the JSON parser depends on the version of Python."""
    path = written(json.dumps(plain).replace('{"drift"', '{"deep": ' + "[" * depth + "]" * depth + ', "drift"'))
    try:
        assert read_manifest(path).digest == hashlib.sha256(path.read_bytes()).hexdigest()
    except ManifestError as error:
        assert "not JSON (" in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("where", "value", "problem"),
    [
        (("source", "model"), "\ud800", "not JSON"),
        (("recipe", "why"), ["\udfff"], "not JSON"),
        (("image", "rescale"), 10**400, "image.rescale: expected a float, got int"),
        (("model", "text_norm_eps"), -(10**400), "model.text_norm_eps: expected a float, got int"),
    ],
)
def test_json_values_that_are_not_supported(written, plain, where, value, problem):
    plain[where[0]][where[1]] = value
    (reported,) = problems(written(json.dumps(plain)))
    assert reported == problem or (problem == "not JSON" and reported.startswith("not JSON ("))


@pytest.mark.parametrize(
    ("part", "field", "value", "problem"),
    [
        ("model", "vocabulary", 1 << 40, "model: vocabulary is 1099511627776, not 1 to 1048576"),
        ("model", "vision_width", 0, "model: vision_width is 0, not 1 to 65536"),
        ("model", "text_heads", 3, "model: image_px must be at least patch_px, vision_width and text_width must be multiples of"),
        ("model", "patch_px", 999, "model: image_px must be at least patch_px, vision_width and text_width must be multiples of"),
        ("model", "text_norm_eps", 0.0, "model: vision_norm_eps and text_norm_eps must lie between 0 and 1"),
        ("model", "vision_activation", "swish", "model.vision_activation: 'swish' is not one of"),
        ("image", "width_px", 33, "manifest: image is 32x33 px, the model takes 32x32"),
        ("image", "height_px", 1 << 20, "image: height_px is 1048576, not 1 to 4096"),
        ("image", "std", [1.0, 0.0, 1.0], "image: mean, std and rescale must be below 1000000, and the last two not 0"),
        ("image", "rescale", 1e300, "image: mean, std and rescale must be below 1000000, and the last two not 0"),
        ("tokenizer", "eos_id", 64, "manifest: tokenizer has an id that is not in the vocabulary"),
        ("tokenizer", "pad_id", -1, "manifest: tokenizer has an id that is not in the vocabulary"),
        ("tokenizer", "drop_left", -1, "tokenizer: drop_left and drop_right must be 0 to 64"),
        ("tokenizer", "drop_right", 1 << 40, "tokenizer: drop_left and drop_right must be 0 to 64"),
        ("defaults", "max_length", 33, "manifest: defaults exceed the model's positions or vocabulary"),
        ("defaults", "num_beams", 32, "manifest: defaults exceed the model's positions or vocabulary"),
        ("defaults", "num_beams", 0, "defaults: num_beams must be at least 1"),
        ("defaults", "min_length", 21, "defaults: lengths must satisfy 0 <= min_length <= max_length and max_length >= 2"),
    ],
)
def test_sizes_that_no_model_has(written, plain, part, field, value, problem):
    """A forged manifest must not make a device run out of memory."""
    plain[part][field] = value
    (reported, *rest) = problems(written(plain))
    assert reported.startswith(problem)
    assert rest == []


@pytest.mark.parametrize(("field", "value"), [("bytes", -1), ("bytes", 1 << 50), ("sha256", "cd" * 31), ("sha256", "CD" * 32)])
def test_invalid_sizes_and_hashes(written, plain, field, value):
    plain["files"]["encoder-3fa9c1d2.onnx"][field] = value
    assert problems(written(plain)) == ["files.encoder-3fa9c1d2.onnx: bytes is out of range, or sha256 is not 64 hexadecimal digits"]


def test_two_files_of_one_role(written, plain):
    plain["files"]["other.onnx"] = plain["files"]["encoder-3fa9c1d2.onnx"]
    assert problems(written(plain)) == ["manifest: two files have the same role"]


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "/x", "..", ".", "", "manifest.json", "./a", "a/", "a\0b", "a\nb", "\x1b[2J", "a\\b", "c:b"]
)
def test_a_file_name_that_is_not_plain(written, plain, name):
    plain["files"][name] = plain["files"].pop("encoder-3fa9c1d2.onnx")
    assert problems(written(plain)) == [f"file name {name!r} is not a plain name"]


def test_every_file_name_that_is_not_plain_is_named(written, plain):
    (entry,) = plain["files"].values()
    plain["files"] = {name: {**entry, "role": name} for name in ("a/b", "fine.onnx", "..")}
    assert problems(written(plain)) == ["file name 'a/b' is not a plain name", "file name '..' is not a plain name"]


def test_a_manifest_that_does_not_exist(tmp_path):
    assert problems(Path(tmp_path / "none.json")) == ["cannot be read (No such file or directory)"]
