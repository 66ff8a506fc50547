"""Folding: the FP32 module computes the same with scales folded into its weights, for each family with its folds."""

import pytest
import torch

from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.families.folding import Fold, fold_scales
from exporters.gate.gate import TIE_NAT
from runtimes.engine_registry import load_target
from tests.checkpoints import untie

IDS = torch.tensor([[62, 5, 17, 9, 30, 41], [62, 8, 8, 25, 33, 12]])
TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=["tied", "untied"])
def checkpoint(request, tiny_checkpoint, tmp_path_factory):
    source = tiny_checkpoint if request.param == "tied" else untie(tiny_checkpoint, tmp_path_factory.mktemp("untied") / "tiny", seed=3)
    return open_checkpoint(str(source))


@pytest.fixture(scope="module")
def pixels(checkpoint):
    return torch.randn(2, 3, checkpoint.image.height_px, checkpoint.image.width_px, generator=torch.Generator().manual_seed(0))


def module_of(checkpoint, weights):
    model = checkpoint.empty_module()
    model.load_state_dict(weights, strict=True, assign=True)
    return model.eval().requires_grad_(False)


def logits(model, pixels):
    past = [torch.zeros(len(IDS), model.shape.text_heads, 0, model.shape.head_width)] * (2 * model.shape.text_layers)
    return model.decode(IDS, torch.arange(IDS.shape[1]), past, model.encode(pixels))[0]


def random_scales(folds, weights, seed=0):
    """Scales from 0.01 to 100, of every fold."""
    generator = torch.Generator().manual_seed(seed)
    widths = {fold.source: weights[f"{fold.consumers[0]}.weight"].shape[1] for fold in folds}
    return {source: 10 ** (4 * torch.rand(width, generator=generator) - 2) for source, width in widths.items()}


def test_logits_and_captions_are_those_of_the_unfolded_module(checkpoint, pixels):
    family, weights = checkpoint.family, checkpoint.load_weights()
    folds = family.folds(checkpoint.model)
    before = {name: tensor.clone() for name, tensor in weights.items()}
    folded = fold_scales(weights, folds, random_scales(folds, weights))
    assert all(torch.equal(weights[name], before[name]) for name in before)
    plain, smooth = (module_of(checkpoint, tensors) for tensors in (weights, folded))
    expected = logits(plain, pixels)
    assert (logits(smooth, pixels) - expected).abs().max() < TOLERANCE
    margins = expected.log_softmax(-1).topk(2).values.diff().abs()
    assert margins.min() > TIE_NAT
    captions = [family.run(model, pixels, checkpoint.tokenizer, family.components) for model in (plain, smooth)]
    assert captions[0] == captions[1]
    assert any(captions[0])


def test_each_fold_changes_what_it_names_and_nothing_else(checkpoint, pixels):
    weights = checkpoint.load_weights()
    folds = checkpoint.family.folds(checkpoint.model)
    expected = logits(module_of(checkpoint, weights), pixels)
    scales = random_scales(folds, weights)
    for fold in folds:
        folded = fold_scales(weights, folds, {fold.source: scales[fold.source]})
        changed = {name.rpartition(".")[0] for name in weights if not torch.equal(folded[name], weights[name])}
        assert changed == {fold.source, *fold.consumers}
        assert (logits(module_of(checkpoint, folded), pixels) - expected).abs().max() < TOLERANCE, fold.source


def test_the_consumers_of_a_fold_are_linear_layers_of_one_component(checkpoint):
    family, module = checkpoint.family, checkpoint.empty_module()
    for fold in family.folds(checkpoint.model):
        assert len({family.component_of(consumer) for consumer in fold.consumers}) == 1
        assert all(isinstance(module.get_submodule(consumer), torch.nn.Linear) for consumer in fold.consumers)


def test_sources_are_unique(checkpoint):
    sources = [fold.source for fold in checkpoint.family.folds(checkpoint.model)]
    assert len(set(sources)) == len(sources)


def test_a_tied_tensor_is_refused(tiny_checkpoint):
    checkpoint = open_checkpoint(str(tiny_checkpoint))
    ((head, table),) = checkpoint.family.head_tables.items()
    weights = checkpoint.load_weights()
    fold = Fold(source="text_decoder.cls.predictions.transform.LayerNorm", consumers=(head.removesuffix(".weight"),))
    with pytest.raises(ValueError, match="are one tensor"):
        fold_scales(weights, [fold], {fold.source: torch.full((weights[table].shape[1],), 2.0)})


def test_every_family_has_folds_of_its_module(checkpoint):
    module = load_target(checkpoint.model.TORCH_MODULE)
    assert checkpoint.family.folds(checkpoint.model)
    assert isinstance(checkpoint.empty_module(), module)
