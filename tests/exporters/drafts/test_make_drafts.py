"""The draft table of an artifact: made from its captions and from texts, and used by default if no caption of the gate changes."""

import numpy as np
import pytest

import runtimes
from exporters.drafts.make_drafts import make_drafts
from exporters.drafts.measure import measure_step_costs
from exporters.drafts.sources import DraftSources
from runtimes.decoding.drafts.draft_table import read_table
from runtimes.errors import RequestError


@pytest.fixture
def captioner(tiny_artifacts):
    return runtimes.load(tiny_artifacts["onnx-fp32"], threads=1)


@pytest.fixture
def paths(drawn_images):
    return [image.path for image in drawn_images[:4]]


class Rounding:
    """A session that returns other logits for a step that feeds several tokens."""

    def __init__(self, session):
        self._session = session

    def __getattr__(self, name):
        return getattr(self._session, name)

    def step(self, token_ids, state, positions):
        logits, state = self._session.step(token_ids, state, positions)
        return (logits[..., ::-1] if token_ids.shape[1] > 1 else logits), state


def test_a_table_from_the_captions_of_the_same_images_saves_steps(captioner, paths):
    content, spec = make_drafts(captioner, DraftSources(images=tuple(paths) * 4), paths)
    assert read_table(content, captioner.manifest.model.vocabulary)
    assert (spec.default, spec.same_captions) == (True, 4)
    assert spec.tokens_per_step > 1.2
    assert captioner.drafter is None, "the captioner is left as it was"


def test_equal_sources_give_equal_tables(captioner, paths):
    sources = DraftSources(images=tuple(paths), texts=("a dog", "a cat"))
    assert make_drafts(captioner, sources, paths)[0] == make_drafts(captioner, sources, paths)[0]


def test_drafts_that_change_a_caption_are_off_by_default(captioner, paths):
    plain = captioner.session
    captioner.session = Rounding(plain)
    _, spec = make_drafts(captioner, DraftSources(images=tuple(paths) * 4), paths)
    assert spec.same_captions < 4
    assert not spec.default


def test_texts_alone_make_a_table(captioner, paths):
    content, _ = make_drafts(captioner, DraftSources(texts=("the dog runs", "the dog sits") * 10), paths)
    dog = captioner.text_ids("the dog")[1:-1]
    assert read_table(content, captioner.manifest.model.vocabulary)[(dog[0],)][0] == dog[1]


def test_without_texts_and_readable_images_there_is_no_table(captioner, paths, tmp_path):
    with pytest.raises(RequestError, match="draft table needs"):
        make_drafts(captioner, DraftSources(images=(tmp_path / "missing.jpg",)), paths)


def test_costs_are_relative_to_one_token_and_never_above_single_steps(captioner):
    costs = measure_step_costs(captioner, captioner.text_ids("a dog"))
    assert costs[0] == 1.0
    assert list(costs) == sorted(costs)
    assert np.all(np.array(costs) <= np.arange(1, len(costs) + 1))
