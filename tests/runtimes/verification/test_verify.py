"""Verifying: every kind of damage is named, other captions are found, ties are counted, and each run proves that it can fail."""

import json
import tempfile
from dataclasses import replace

import pytest

from exporters.recipes import RECIPES
from runtimes.artifact.folder import open_artifact, sha256_of
from runtimes.errors import ArtifactCorruptError, ArtifactCrashError, DigestError, GoldenError, OutputError, RequestError
from runtimes.storage.archive import unpack
from runtimes.verification import fault_injection
from runtimes.verification.sandbox import open_apart
from runtimes.verification.verify import summary, verify
from toolkit.packaging.package import package


@pytest.fixture(scope="module")
def archive(tiny_artifacts, tmp_path_factory):
    path = tmp_path_factory.mktemp("verify") / "tiny.tar.gz"
    package(tiny_artifacts["onnx-fp32"], path)
    return path


@pytest.fixture
def folder(archive, tmp_path):
    unpack(archive, tmp_path / "tiny")
    return tmp_path / "tiny"


def resealed(folder, name, content):
    """Change a file and everything that says what it was."""
    (folder / name).write_bytes(content)
    manifest = open_artifact(folder).manifest
    entry = replace(manifest.files[name], bytes=len(content), sha256=sha256_of(folder / name))
    (folder / "manifest.json").write_bytes(replace(manifest, files={**manifest.files, name: entry}).content)


def with_golden(folder, change):
    """Change golden.json's picture 0."""
    golden = json.loads((folder / "golden.json").read_bytes())
    change(golden, golden["pictures"][0]["captions"])
    resealed(folder, "golden.json", json.dumps(golden).encode())


def test_a_package_is_verified_as_archive_and_as_folder(archive, folder):
    digest = open_artifact(folder).manifest.digest
    from_archive, from_folder = verify(archive), verify(folder, digest=digest, untrusted=True)
    assert replace(from_folder, authentic=False, tried_apart=False) == from_archive
    assert (from_folder.authentic, from_folder.tried_apart, from_folder.digest) == (True, True, digest)
    golden = from_folder.golden
    assert (golden.captions, golden.equal, golden.ties, golden.differences, golden.same_machine) == (6, 6, (), (), True)
    assert from_folder.golden_noticed is True
    assert from_folder.flipped_bit.startswith("encoder-")
    assert any("6 of 6 as recorded on this kind of machine, 0 ties" in line for line in summary(from_folder))


@pytest.mark.full
@pytest.mark.parametrize("recipe", [recipe.name for recipe in RECIPES if recipe.layout == "split"])
def test_every_recipe_can_be_packaged_and_proves_itself(tiny_artifacts, tmp_path, recipe):
    package(tiny_artifacts[recipe], tmp_path / "a.tar.gz")
    report = verify(tmp_path / "a.tar.gz", untrusted=True)
    assert (report.golden.equal, report.golden_noticed) == (6, True)


def test_a_single_graph_is_verified_and_cannot_be_packaged(tiny_artifacts, tmp_path):
    """Golden captions need logits, which it does not give."""
    report = verify(tiny_artifacts["onnx-int8-single"], untrusted=True)
    assert (report.tried_apart, report.golden) == (True, None)
    with pytest.raises(RequestError, match="split"):
        package(tiny_artifacts["onnx-int8-single"], tmp_path / "a.tar.gz")
    assert list(tmp_path.iterdir()) == []


def test_an_artifact_without_golden_captions_says_so(tiny_artifacts):
    report = verify(tiny_artifacts["pytorch-int8"])
    assert (report.golden, report.zeroed, report.golden_noticed) == (None, None, None)
    assert "only a package" in summary(report)[-1]


def test_another_digest_than_the_senders_is_an_error(archive, folder):
    for path in (archive, folder):
        with pytest.raises(DigestError, match=r"sha256 of its manifest\.json is [0-9a-f]{64}, not 0{64}"):
            verify(path, digest="0" * 64)


def test_every_file_that_is_not_as_declared_is_named(folder):
    encoder = open_artifact(folder).path_of("encoder")
    encoder.write_bytes(encoder.read_bytes() + b"\0")
    content = bytearray((folder / "golden-cat.jpg").read_bytes())
    content[100] ^= 1
    (folder / "golden-cat.jpg").write_bytes(content)
    (folder / "golden-cat.png").unlink()
    (folder / "README.md").unlink()
    (folder / "README.md").mkdir()
    (folder / "extra").write_text("")
    with pytest.raises(ArtifactCorruptError) as found:
        verify(folder)
    for said in (
        "'extra' is not declared",
        f"{encoder.name} has {encoder.stat().st_size} bytes",
        "golden-cat.jpg sha256 is",
        "golden-cat.png is missing",
        "README.md cannot be read (Is a directory)",
    ):
        assert said in str(found.value)


def test_other_ids_are_an_error_unless_the_margin_was_a_tie(folder):
    def other_word(golden, captions):
        captions[0]["token_ids"][2] = 5 if captions[0]["token_ids"][2] != 5 else 6

    with_golden(folder, other_word)
    with pytest.raises(GoldenError, match=r"1 beam.*token 2, margin"):
        verify(folder)

    def undecided(golden, captions):
        captions[0]["margins_nat"][1] = 0.0009

    with_golden(folder, undecided)
    report = verify(folder)
    assert (report.golden.equal, len(report.golden.ties), report.golden.differences) == (5, 1, ())
    assert any(line.strip().startswith("tie: golden-cat.jpg and golden-cat.png: with 1 beams says") for line in summary(report))


def test_other_weights_are_an_error_though_all_hashes_are_right(folder):
    artifact = open_artifact(folder)
    with fault_injection.zeroed_layer(artifact) as (copy, _):
        before, after = ((path / artifact.path_of("encoder-weights").name).read_bytes() for path in (folder, copy))
        assert 0 < sum(a != b for a, b in zip(after, before, strict=True)) <= len(before) // 1000
        with pytest.raises(GoldenError, match=r"logits .*0\.\d+.*0\.001"):
            verify(copy)


def test_goldens_that_notice_nothing_are_called_weak(folder):
    def blind(golden, captions):
        golden["machine"]["versions"] = {"onnxruntime": "0"}
        golden["logits_tolerance"] = 10.0

    with_golden(folder, blind)
    report = verify(folder)
    assert (report.golden_noticed, report.golden.same_machine, report.golden.logits_bound) == (False, False, 10.0)
    assert "WEAK" in summary(report)[-1]


def test_no_room_for_copies_is_an_error_of_ours(archive, folder, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    for path in (archive, folder):
        with pytest.raises(OutputError, match="nowhere: "):
            verify(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda golden: golden.update(tie_nat=5.0), "forgive anything"),
        (lambda golden: golden.update(schema=2), "schema 2"),
        (lambda golden: golden.update(pictures=[]), "no captions"),
        (lambda golden: golden["pictures"][0].update(original="../x.jpg"), r"needs \.\./x\.jpg"),
        (lambda golden: golden["pictures"][0]["captions"][0]["margins_nat"].pop(), "needs its margin"),
        (lambda golden: golden.pop("machine"), "missing machine"),
    ],
)
def test_golden_captions_that_cannot_be_read_are_an_error(folder, change, said):
    with_golden(folder, lambda golden, captions: change(golden))
    with pytest.raises(ArtifactCorruptError, match=said):
        verify(folder)


def test_a_picture_or_logits_of_another_size_are_an_error(folder):
    resealed(folder, "golden-logits.f32", (folder / "golden-logits.f32").read_bytes()[:-4])
    with pytest.raises(ArtifactCorruptError, match=r"f32\[3,64\]"):
        verify(folder)


class TestApart:
    def test_too_little_memory_is_an_error_of_ours(self, folder):
        with pytest.raises((ArtifactCrashError, ArtifactCorruptError)):
            open_apart(open_artifact(folder), memory_bytes=128 << 20)

    def test_too_little_time_is_an_error_of_ours(self, folder):
        with pytest.raises(ArtifactCrashError, match=r"0\.05 s"):
            open_apart(open_artifact(folder), seconds=0.05)

    def test_what_cannot_be_opened_is_said(self, folder):
        resealed(folder, open_artifact(folder).manifest.file_of("decoder"), b"no graph")
        with pytest.raises(ArtifactCorruptError, match="decoder"):
            verify(folder, untrusted=True)

    def test_a_module_in_the_current_folder_is_not_run(self, folder, tmp_path, monkeypatch):
        trap = tmp_path / "trap"
        trap.mkdir()
        for name in ("numpy", "json", "runtimes"):
            (trap / f"{name}.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')")
        monkeypatch.chdir(trap)
        open_apart(open_artifact(folder))
        assert not (tmp_path / "sprung").exists()
