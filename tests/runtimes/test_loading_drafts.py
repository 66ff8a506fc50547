"""How `load` uses a draft table: by the manifest, by the caller, and with files and entries that cannot be used."""

import logging

import pytest

import runtimes
from runtimes.decoding.drafts.draft_table import write_table
from runtimes.errors import ArtifactCorruptError, RequestError
from tests.drafted import SPEC, certain_table, drafted_copy

TABLE = {(5,): (6, 0.9)}


@pytest.fixture
def copy(tiny_artifacts, tmp_path):
    """A function that copies the artifact of a recipe with a draft table."""
    return lambda recipe="onnx-fp32", **parts: drafted_copy(tiny_artifacts[recipe], tmp_path / recipe, **parts)


@pytest.mark.parametrize(
    ("default", "draft", "drafts"),
    [(True, None, True), (True, False, False), (True, True, True), (False, None, False), (False, True, True)],
)
def test_the_manifest_decides_unless_the_caller_does(copy, default, draft, drafts):
    captioner = runtimes.load(copy(content=TABLE, spec=SPEC | {"default": default}), threads=1, draft=draft)
    assert (captioner.drafter is not None) == drafts
    if captioner.drafter:
        assert captioner.drafter.propose([5], limit=3) == [6]
        assert captioner.drafter.step_costs == tuple(SPEC["step_costs"])


def test_artifacts_without_a_table_caption_without_drafts(tiny_artifacts):
    assert runtimes.load(tiny_artifacts["onnx-fp32"], threads=1).drafter is None
    with pytest.raises(RequestError, match="has no draft table"):
        runtimes.load(tiny_artifacts["onnx-fp32"], threads=1, draft=True)


def test_a_single_graph_captions_without_drafts(tiny_artifacts):
    assert runtimes.load(tiny_artifacts["onnx-int8-single"], threads=1).drafter is None
    for draft in (True, "learn"):
        with pytest.raises(RequestError, match="its whole loop in one graph"):
            runtimes.load(tiny_artifacts["onnx-int8-single"], threads=1, draft=draft)


def test_learning_is_refused_where_the_number_of_tokens_changes_logits(copy):
    with pytest.raises(RequestError, match="cannot learn drafts"):
        runtimes.load(copy("pytorch-int8", content=TABLE, spec=SPEC | {"tolerance": 0.1}), threads=1, draft="learn")


def test_a_learning_captioner_drafts_what_it_has_captioned(copy, drawn_images):
    captioner = runtimes.load(copy(content={}, spec=SPEC | {"tolerance": 1e-5}), threads=1, draft="learn")
    steps = []
    for _ in range(8):
        phases = []
        captioner.caption(drawn_images[0].path, timer=lambda phase, seconds: phases.append(phase))  # noqa: B023 - called at once
        steps.append(phases.count("step"))
    assert steps[-1] < 0.6 * steps[0]


UNUSABLE = {
    "not a table": {"content": b"not a table"},
    "another vocabulary": {"content": write_table({(5,): (60_000, 0.9)})},
    "no entry of numbers": {"spec": SPEC | {"step_costs": "fast"}},
    "an entry of another version": {"spec": {"format": 2}},
    "an entry that is a list": {"spec": [1, 2]},
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_table_that_cannot_be_used_costs_one_warning(copy, name, caplog):
    path = copy(**({"content": TABLE} | UNUSABLE[name]))
    with caplog.at_level(logging.WARNING):
        captioner = runtimes.load(path, threads=1)
    assert captioner.drafter is None
    (record,) = caplog.records
    assert "\n" not in record.getMessage()
    with pytest.raises(RequestError, match="has no draft table"):
        runtimes.load(path, threads=1, draft=True)


def test_a_table_that_differs_from_the_manifest_is_damage(copy):
    path = copy(content=TABLE)
    (file,) = path.glob("drafts-*.npy")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ArtifactCorruptError, match=r"drafts-.*sha256"):
        runtimes.load(path, threads=1)
    file.unlink()
    with pytest.raises(ArtifactCorruptError, match="is missing"):
        runtimes.load(path, threads=1)


@pytest.mark.parametrize(
    ("recipe", "tolerance", "share"),
    [("onnx-fp32", 1e-5, 0.6), ("pytorch-fp32", 1e-5, 0.6), ("onnx-int8", 0.3, 9), ("onnx-int4", 0.3, 9)],
)
def test_right_drafts_give_the_same_captions_in_fewer_steps(tiny_artifacts, drawn_images, tmp_path, recipe, tolerance, share):
    paths = [image.path for image in drawn_images[:4]]
    plain = runtimes.load(tiny_artifacts[recipe], threads=1)
    expected, phases = plain.caption(paths), []
    for caption, path in zip(expected, paths, strict=True):
        table = certain_table([caption.token_ids])
        captioner = runtimes.load(
            drafted_copy(tiny_artifacts[recipe], tmp_path / path.stem, table, SPEC | {"tolerance": tolerance}), threads=1
        )
        (drafted,) = captioner.caption(path, timer=lambda phase, seconds: phases.append(phase))
        assert drafted.token_ids == caption.token_ids
        assert drafted.score == pytest.approx(caption.score, abs=2e-2)
    assert phases.count("first_token") == len(paths)
    assert phases.count("first_token") + phases.count("token") == sum(len(caption.token_ids) - 1 for caption in expected)
    assert phases.count("step") < share * (phases.count("first_token") + phases.count("token"))
