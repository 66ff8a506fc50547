"""`verify`: damage, different captions, ties, forged golden.json files, and the sandbox."""

import json
import os
import resource
import subprocess
import sys
import tempfile
from dataclasses import replace

import pytest

from exporters.recipes import RECIPES
from runtimes.artifact.folder import open_artifact, sha256_of
from runtimes.artifact.verified_files import open_verified
from runtimes.errors import (
    ArchiveError,
    ArtifactCorruptError,
    ArtifactCrashError,
    DigestError,
    GoldenError,
    ImageReadError,
    OutputError,
    ToolkitError,
)
from runtimes.storage.archive import unpack
from runtimes.verification.golden import read_golden
from runtimes.verification.sandbox import examine_in_subprocess
from runtimes.verification.verify import summary, verify
from tests.paths import ROOT
from toolkit.packaging.package import package
from toolkit.packaging.sensitivity import with_zeroed_weight


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
    """Replace a file and its entry in the manifest."""
    (folder / name).write_bytes(content)
    manifest = open_artifact(folder).manifest
    entry = replace(manifest.files[name], bytes=len(content), sha256=sha256_of(folder / name))
    (folder / "manifest.json").write_bytes(replace(manifest, files={**manifest.files, name: entry}).content)


def with_golden(folder, change):
    """Modify golden.json. `change` is called with its content and the captions of its first image."""
    golden = json.loads((folder / "golden.json").read_bytes())
    change(golden, golden["images"][0]["captions"])
    resealed(folder, "golden.json", json.dumps(golden).encode())


def test_a_package_is_verified_as_archive_and_as_folder(archive, folder):
    digest = open_artifact(folder).manifest.digest
    from_archive, from_folder = verify(archive), verify(folder, digest=digest, untrusted=True)
    assert replace(from_folder, authentic=False, sandboxed=False) == from_archive
    assert (from_folder.authentic, from_folder.sandboxed, from_folder.digest) == (True, True, digest)
    golden = from_folder.golden
    assert (golden.captions, golden.equal, golden.ties, golden.differences, golden.same_machine) == (6, 6, (), (), True)
    assert from_folder.sensitivity.noticed
    assert any("6 of 6 as recorded on this kind of machine, 0 ties (beams 1, 3)" in line for line in summary(from_folder))


@pytest.mark.full
@pytest.mark.parametrize("recipe", [recipe.name for recipe in RECIPES if recipe.name != "onnx-int8-single"])
def test_every_recipe_can_be_packaged_and_its_golden_captions_detect_damage(tiny_artifacts, tmp_path, recipe):
    package(tiny_artifacts[recipe], tmp_path / "a.tar.gz")
    report = verify(tmp_path / "a.tar.gz", untrusted=True)
    assert (report.golden.equal, report.sensitivity.noticed) == (6, True)


@pytest.fixture(scope="module")
def single(tiny_artifacts, tmp_path_factory):
    """A package of a single graph, unpacked."""
    path = tmp_path_factory.mktemp("single") / "single.tar.gz"
    package(tiny_artifacts["onnx-int8-single"], path)
    unpack(path, path.with_name("single"))
    return path.with_name("single")


class TestSingleGraph:
    """A session without logits is packaged and verified by token ids and scores of greedy search."""

    def test_it_is_verified(self, single):
        report = verify(single, untrusted=True)
        golden = report.golden
        assert (golden.searches, golden.captions, golden.equal, golden.logits_difference) == ((1,), 3, 3, None)
        assert report.sensitivity.layer.startswith("encoder/")
        # Ids and scores of three captions may miss a thousandth of the patch embedding, the largest weight of a tiny model.
        assert any(line.startswith("  WEAK") for line in summary(report)) != report.sensitivity.noticed
        assert not (single / "golden-logits.f32").exists()

    @pytest.mark.full
    def test_its_ids_and_scores_detect_damage_of_the_shipped_model(self, mini_artifacts, tmp_path):
        package(mini_artifacts["onnx-int8-single"], tmp_path / "a.tar.gz")
        report = verify(tmp_path / "a.tar.gz", untrusted=True)
        assert (report.golden.equal, report.sensitivity.noticed) == (3, True)

    def test_its_ids_are_those_of_the_split_graphs(self, single, tiny_artifacts, tmp_path):
        package(tiny_artifacts["onnx-int8"], tmp_path / "a.tar.gz")
        unpack(tmp_path / "a.tar.gz", tmp_path / "split")
        goldens = [json.loads((folder / "golden.json").read_bytes())["images"] for folder in (single, tmp_path / "split")]
        of_single, of_split = ([image["captions"][0]["token_ids"] for image in images] for images in goldens)
        assert of_single == of_split

    @pytest.mark.parametrize("change", [{"score": 1.0}, {"token_ids": 1}])
    def test_another_caption_or_score_is_an_error(self, single, tmp_path, change):
        package(single, tmp_path / "a.tar.gz")
        unpack(tmp_path / "a.tar.gz", tmp_path / "a")

        def other(golden, captions):
            if "score" in change:
                captions[0]["score"] += 0.01
            else:
                captions[0]["token_ids"][2] = 5 if captions[0]["token_ids"][2] != 5 else 6

        with_golden(tmp_path / "a", other)
        with pytest.raises(GoldenError, match=r"score differs by 0\.01" if "score" in change else r"with 1 beams: .* \(token 2; without"):
            verify(tmp_path / "a")


def test_an_artifact_without_golden_captions(tiny_artifacts):
    report = verify(tiny_artifacts["onnx-int8"])
    assert (report.golden, report.sensitivity) == (None, None)
    assert "only a package" in summary(report)[-1]


def test_another_digest_than_the_senders_is_an_error(archive, folder):
    for path in (archive, folder):
        with pytest.raises(DigestError, match=r"sha256 of its manifest\.json is [0-9a-f]{64}, not 0{64}"):
            verify(path, digest="0" * 64)


def test_every_file_that_differs_from_the_manifest_is_reported(folder):
    encoder = open_artifact(folder).path_of("encoder")
    encoder.write_bytes(encoder.read_bytes() + b"\0")
    content = bytearray((folder / "golden-cat.jpg").read_bytes())
    content[100] ^= 1
    (folder / "golden-cat.jpg").write_bytes(content)
    (folder / "golden-cat.png").unlink()
    (folder / "README.md").unlink()
    (folder / "README.md").mkdir()
    (folder / "extra").write_text("")
    with pytest.raises(ArtifactCorruptError) as caught:
        verify(folder)
    for message in (
        "'extra' is not declared",
        f"{encoder.name} has {encoder.stat().st_size} bytes",
        "golden-cat.jpg sha256 is",
        "golden-cat.png is missing",
        "README.md cannot be read (Is a directory)",
    ):
        assert message in str(caught.value)


def test_different_ids_are_an_error_unless_the_margin_is_a_tie(folder):
    def other_word(golden, captions):
        captions[0]["token_ids"][2] = 5 if captions[0]["token_ids"][2] != 5 else 6

    with_golden(folder, other_word)
    with pytest.raises(GoldenError, match=r"with 1 beams: .* \(token 2, margin"):
        verify(folder)

    def undecided(golden, captions):
        captions[0]["margins_nat"][1] = 0.0009

    with_golden(folder, undecided)
    report = verify(folder)
    assert (report.golden.equal, len(report.golden.ties), report.golden.differences) == (5, 1, ())
    assert any(line.strip().startswith("tie: golden-cat.jpg and golden-cat.png: with 1 beams: ") for line in summary(report))


def test_different_weights_are_an_error_although_all_hashes_match(folder, tmp_path):
    """A thousandth of the weights is zero, and the manifest has the new hash."""
    artifact = open_artifact(folder)
    (tmp_path / "copy").mkdir()
    with_zeroed_weight(artifact, tmp_path / "copy")
    name = artifact.path_of("encoder-weights").name
    before, after = ((path / name).read_bytes() for path in (folder, tmp_path / "copy"))
    assert 0 < sum(a != b for a, b in zip(after, before, strict=True)) <= len(before) // 1000
    resealed(folder, name, after)
    with pytest.raises(GoldenError, match=r"logits differ by 0\.\d+, 0\.001 is allowed"):
        verify(folder)


def test_golden_captions_that_detect_no_damage_are_reported_as_weak(folder):
    with_golden(folder, lambda golden, captions: golden["sensitivity"].update(noticed=False))
    report = verify(folder)
    assert report.sensitivity.noticed is False
    assert "WEAK" in summary(report)[-1]


class TestWhereAnArchiveIsUnpacked:
    def test_in_the_folder_of_the_archive_without_remains(self, archive, monkeypatch, tmp_path):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
        before = sorted(archive.parent.iterdir())
        assert verify(archive).golden is not None
        assert sorted(archive.parent.iterdir()) == before

    def test_in_a_folder_by_choice(self, archive, tmp_path):
        assert verify(archive, work_dir=tmp_path).golden is not None
        assert list(tmp_path.iterdir()) == []

    def test_no_room_is_an_error_that_names_the_folder_and_the_option(self, archive, tmp_path):
        with pytest.raises(OutputError, match=rf"{tmp_path}/nowhere: cannot write: No such file.*--work-dir"):
            verify(archive, work_dir=tmp_path / "nowhere")
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
        try:
            with pytest.raises(OutputError, match=rf"{tmp_path}: cannot write: File too large.*--work-dir"):
                verify(archive, work_dir=tmp_path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        assert list(tmp_path.iterdir()) == []

    def test_a_damaged_archive_is_not_an_error_of_the_folder(self, tmp_path):
        (tmp_path / "a.tar.gz").write_bytes(b"x")
        with pytest.raises(ArchiveError):
            verify(tmp_path / "a.tar.gz")


def first_caption_only(golden, captions):
    captions.pop()


def three_captions(golden, captions):
    captions.append(captions[0])


def other_beams(golden, captions):
    captions[1]["num_beams"] = 7


def nan(golden, captions):
    captions[0]["score"] = float("nan")


def infinite_margin(golden, captions):
    captions[0]["margins_nat"][0] = 1e999


def huge_id(golden, captions):
    captions[0]["token_ids"][1] = 1 << 70


def negative_id(golden, captions):
    captions[0]["token_ids"][1] = -1


def long_caption(golden, captions):
    captions[0]["token_ids"] += [5] * 20
    captions[0]["margins_nat"] += [0.5] * 20


def no_margins(golden, captions):
    captions[0]["margins_nat"] = None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda golden, _: golden.update(tie_nat=5.0), "tie_nat must be 0 to 1"),
        (lambda golden, _: golden.update(logits_tolerance=float("nan")), "tie_nat must be 0 to 1"),
        (lambda golden, _: golden.update(logits_tolerance=None), "must both be given"),
        (lambda golden, _: golden.update(schema=2), "schema 2"),
        (lambda golden, _: golden.update(images=[]), "0 images"),
        (lambda golden, _: golden.update(images=golden["images"] * 6), "18 images, not 1 to 16"),
        (lambda golden, _: golden["images"][0].update(original="../x.jpg"), r"golden:\.\./x\.jpg"),
        (lambda golden, _: golden["images"][0].update(resized="manifest.json"), r"golden:manifest\.json"),
        (lambda golden, _: golden["images"][0].update(original="a\nb\u001b"), r"golden:a\\nb"),
        (lambda golden, captions: captions[0]["margins_nat"].pop(), "needs a margin"),
        (lambda golden, _: golden.pop("machine"), "missing machine"),
        (lambda golden, _: golden.pop("sensitivity"), "missing sensitivity"),
        (lambda golden, _: golden.update(max_length=1), "max_length is 1, not 2 to"),
        (lambda golden, _: golden.update(max_length=0), "max_length is 0"),
        (lambda golden, _: golden.update(max_length=1 << 40), "not 2 to the model's"),
        (first_caption_only, "1 beams, another"),
        (three_captions, "1, 3, 1 beams"),
        (other_beams, "1, 7 beams"),
        (nan, "must be finite"),
        (infinite_margin, "must be finite"),
        (huge_id, "not in the vocabulary"),
        (negative_id, "not in the vocabulary"),
        (long_caption, "tokens, not 2 to max_length"),
        (no_margins, "must both be given"),
    ],
)
def test_a_forged_golden_json_is_one_line_with_a_code(folder, change, message):
    with_golden(folder, change)
    with pytest.raises(ArtifactCorruptError, match=message) as caught, open_verified(open_artifact(folder)) as files:
        read_golden(files)
    assert str(caught.value).isprintable()
    command = [sys.executable, "-m", "toolkit.cli", "verify", str(folder), "--json"]
    if change is first_caption_only:  # one case through the command line, which takes seconds
        ended = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)})
        assert (ended.returncode, json.loads(ended.stdout)["code"], len(ended.stderr.splitlines())) == (1, "ARTIFACT_CORRUPT", 1)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"[" * 100_000, b"\xff", b'{"schema": 1}' + b" " * (1 << 20)])
def test_invalid_content_of_golden_json_is_an_error(folder, content):
    resealed(folder, "golden.json", content)
    with pytest.raises(ArtifactCorruptError), open_verified(open_artifact(folder)) as files:
        read_golden(files)


def test_images_and_logits_of_another_size_are_an_error(folder, drawn_images):
    logits = (folder / "golden-logits.f32").read_bytes()
    for content, message in ((logits[:-4], r"is not f32\[3,64\]"), (b"\0\0\xc0\x7f" + logits[4:], "not finite")):
        resealed(folder, "golden-logits.f32", content)
        with pytest.raises(ArtifactCorruptError, match=message):
            verify(folder)
    resealed(folder, "golden-logits.f32", logits)
    resealed(folder, "golden-cat.png", drawn_images[0].path.read_bytes())
    with pytest.raises(ArtifactCorruptError, match="is 40x32, not 32x32"):
        verify(folder)
    resealed(folder, "golden-cat.png", b"no image")
    with pytest.raises(ImageReadError, match=r"golden-cat\.png"):
        verify(folder)


def test_each_kind_of_file_that_is_damaged_has_its_code(folder):
    for name in ("manifest.json", *open_artifact(folder).manifest.files):
        content = (folder / name).read_bytes()
        half = len(content) // 2
        flipped = content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
        (folder / name).write_bytes(content[:-10] if name == "manifest.json" else flipped)
        with pytest.raises(ToolkitError) as caught:
            verify(folder)
        assert caught.value.code == ("MANIFEST_INVALID" if name == "manifest.json" else "ARTIFACT_CORRUPT")
        assert name in str(caught.value)
        (folder / name).write_bytes(content)
    assert verify(folder).golden.equal == 6


class TestSandbox:
    def test_too_little_memory_is_a_toolkit_error(self, folder):
        with pytest.raises((ArtifactCrashError, ArtifactCorruptError), match=r"in a subprocess failed|cannot be opened"):
            examine_in_subprocess(open_artifact(folder), memory_bytes=128 << 20)

    def test_too_little_time_is_a_toolkit_error(self, folder):
        with pytest.raises(ArtifactCrashError, match=r"no answer within 0\.05 s"):
            examine_in_subprocess(open_artifact(folder), seconds=0.05)

    def test_an_artifact_that_cannot_be_opened(self, folder):
        resealed(folder, open_artifact(folder).manifest.file_of("decoder"), b"no graph")
        with pytest.raises(ArtifactCorruptError, match=r"cannot be opened: .*decoder"):
            verify(folder, untrusted=True)

    def test_a_module_in_the_current_folder_is_not_run(self, folder, tmp_path, monkeypatch):
        trap = tmp_path / "trap"
        trap.mkdir()
        for name in ("numpy", "json", "runtimes"):
            (trap / f"{name}.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')")
        monkeypatch.chdir(trap)
        examine_in_subprocess(open_artifact(folder))
        assert not (tmp_path / "sprung").exists()

    def test_the_parent_process_runs_no_native_code_on_the_files(self, folder):
        """Neither an engine nor an image decoder is imported: golden captions are compared in the subprocess."""
        run = (
            "import sys, json, pathlib\nfrom runtimes.verification.verify import verify\n"
            "import onnxruntime, tokenizers\nfrom PIL import Image\n"
            "def refuse(*arguments, **options): raise AssertionError\n"
            "onnxruntime.InferenceSession = tokenizers.Tokenizer.from_buffer = Image.open = refuse\n"
            f"print(verify(pathlib.Path({str(folder)!r}), untrusted=True).golden.equal)\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        ended = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, check=False, env=environment)
        assert (ended.stdout, ended.stderr) == ("6\n", "")

    def test_a_lower_hard_limit_is_kept_and_is_not_an_error(self, folder):
        """Under ulimit or in a batch system, only root can set a higher limit."""
        run = (
            "import resource, pathlib\n"
            "from runtimes.verification.sandbox import ExamineRequest, _limit\n"
            "resource.setrlimit(resource.RLIMIT_CPU, (100, 200))\n"
            "warnings = []\n"
            "_limit(ExamineRequest(path='', threads=1, memory_bytes=1 << 40, seconds=300), warnings.append)\n"
            "print(resource.getrlimit(resource.RLIMIT_CPU), resource.getrlimit(resource.RLIMIT_CORE), warnings)\n"
            "resource.setrlimit = lambda *_: (_ for _ in ()).throw(ValueError('not allowed'))\n"
            "_limit(ExamineRequest(path='', threads=1, memory_bytes=1 << 40, seconds=300), warnings.append)\n"
            "print(warnings[0])\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        ended = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, check=True, env=environment)
        assert ended.stdout.splitlines() == ["(200, 200) (0, 0) []", "RLIMIT_AS could not be set to 1099511627776: not allowed"]
