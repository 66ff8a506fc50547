"""Test recipes: all can be looked up by name and read from a file; recipes that no exporter supports are refused in one line."""

import json
from dataclasses import replace

import pytest

from exporters.recipe import Component, Recipe
from exporters.recipes import RECIPES, find_recipe, find_recipes, for_task
from runtimes.artifact import json_dataclass
from runtimes.artifact.folder import open_artifact
from runtimes.errors import RecipeError, UnknownNameError


class TestRecipes:
    def test_recipe_names_are_unique_and_findable(self):
        assert [find_recipe(recipe.name) for recipe in RECIPES] == list(RECIPES)
        assert len({recipe.name for recipe in RECIPES}) == len(RECIPES)
        assert len({recipe.sha256 for recipe in RECIPES}) == len(RECIPES)

    @pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
    def test_a_file_of_its_fields_gives_the_same_recipe(self, tmp_path, recipe):
        file = tmp_path / "mine.json"
        file.write_text(json.dumps(json_dataclass.dump(recipe)))
        read = find_recipe(str(file))
        assert read == recipe
        assert read.sha256 == recipe.sha256

    @pytest.mark.parametrize(
        ("encoder", "decoder", "precision"),
        [
            ("fp32", "fp32", "fp32"),
            ("qint8", "fp32", "int8"),
            ("fp32", "quint8", "int8"),
            ("qint8", "qint4", "int4"),
            ("qint4", "fp32", "int4"),
        ],
    )
    def test_precision_is_the_smaller_of_the_two_formats(self, encoder, decoder, precision):
        parts = [Component(weights=weights, block_size=32 if weights == "qint4" else None) for weights in (encoder, decoder)]
        recipe = Recipe(name="m", runtime="ort", why="w", components={"encoder": parts[0], "decoder": parts[1]}, drift_limit_nat=0.1)
        assert recipe.precision == precision

    def test_a_component_without_an_entry_uses_the_default(self):
        small, plain = Component(weights="qint4", block_size=32), Component(weights="qint8", per_channel=True)
        recipe = Recipe(name="m", runtime="ort", why="w", components={"*": plain, "decoder": small}, drift_limit_nat=0.1)
        assert [recipe.component(name) for name in ("encoder", "decoder", "question")] == [plain, small, plain]
        assert find_recipe("pytorch-fp32").component("encoder") == Component()

    def test_unknown_components_are_refused_and_the_known_ones_listed(self):
        recipe = replace(find_recipe("onnx-int8"), components={"*": Component(), "encodr": Component(), "text": Component()})
        with pytest.raises(RecipeError, match="encodr, text; known: encoder, decoder"):
            recipe.check_components(("encoder", "decoder"))

    def test_the_hash_changes_with_any_field(self):
        recipe = find_recipe("onnx-int8")
        others = [
            replace(recipe, drift_limit_nat=0.021),
            replace(recipe, components={**recipe.components, "decoder": Component(weights="qint8", block_size=32)}),
        ]
        assert len({variant.sha256 for variant in (recipe, *others)}) == 3

    def test_the_manifest_contains_the_recipe_and_its_hash(self, tiny_artifacts):
        for name, path in tiny_artifacts.items():
            recipe = find_recipe(name)
            assert open_artifact(path).manifest.recipe == {**json_dataclass.dump(recipe), "sha256": recipe.sha256}

    @pytest.mark.parametrize(
        ("names", "cuda", "expected"),
        [
            ((), False, ["pytorch-int8", "onnx-fp32", "onnx-int8", "onnx-int4"]),
            ((), True, ["pytorch-int8", "pytorch-fp16", "onnx-fp32", "onnx-int8", "onnx-int4", "onnx-fp16"]),
            (("all",), False, [recipe.name for recipe in RECIPES]),
            (("onnx-int4", "pytorch-fp32"), True, ["onnx-int4", "pytorch-fp32"]),
        ],
    )
    def test_names_select_the_recipes_of_an_export(self, names, cuda, expected):
        assert [recipe.name for recipe in find_recipes(names, cuda=cuda)] == expected

    def test_unknown_name_lists_the_known_ones(self):
        with pytest.raises(UnknownNameError) as caught:
            find_recipe("onnx-int3")
        names = ["fp16", "fp32", "int4", "int8", "int8-fast", "int8-full", "int8-single"]
        known = ", ".join(["a .json file", "all", *(f"onnx-{name}" for name in names), "pytorch-fp16, pytorch-fp32, pytorch-int8"])
        assert str(caught.value) == f"unknown recipe 'onnx-int3'; known: {known}"

    def test_unknown_key_is_named_with_the_known_ones(self, tmp_path):
        file = tmp_path / "mine.json"
        file.write_text(
            json.dumps({"name": "mine", "runtime": "ort", "why": "Why not.", "components": {"encoder": {"per_chanel": True}}, "bits": 4})
        )
        with pytest.raises(RecipeError) as caught:
            find_recipe(str(file))
        message = str(caught.value)
        assert message.startswith(f"{file}: ")
        assert (
            "unknown recipe field(s) bits; known: name, runtime, why, device, cpu_features, components, layout, image_scale, "
            "drift_limit_nat" in message
        )
        known = "weights, per_channel, block_size, reduce_range, layers, smooth"
        assert f"unknown component field(s) components.encoder.per_chanel; known: {known}" in message

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            ("not json", "cannot read this recipe"),
            ("[]", "document: expected an object, got list"),
            ('{"runtime": "ort"}', "missing name, why"),
            ('{"name": "m", "why": "w", "runtime": "tflite"}', "runtime 'tflite' is not one of ort, torch"),
            ('{"name": "m", "why": "w", "runtime": "ort", "drift_limit_nat": "0.1"}', "drift_limit_nat: expected float, got str"),
            (
                '{"name": "m", "why": "w", "runtime": "ort", "components": {"encoder": {"weights": "int4"}}}',
                "components.encoder.weights: 'int4' is not one of",
            ),
        ],
    )
    def test_an_invalid_file_is_refused_in_one_line(self, tmp_path, content, problem):
        file = tmp_path / "mine.json"
        file.write_text(content)
        with pytest.raises(RecipeError) as caught:
            find_recipe(str(file))
        assert problem in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_missing_file_is_refused(self, tmp_path):
        with pytest.raises(RecipeError):
            find_recipe(str(tmp_path / "none.json"))

    @pytest.mark.parametrize(
        ("runtime", "components", "problem"),
        [
            ("ort", {"encoder": {"reduce_range": True}}, "reduce_range needs INT8 weights without blocks"),
            ("ort", {"*": {"weights": "qint8", "block_size": 32, "reduce_range": True}}, "needs INT8 weights without blocks"),
            ("ort", {"encoder": {"smooth": "auto"}}, "smooth needs quantized weights"),
            ("ort", {"encoder": {"weights": "fp16", "smooth": 0.5}}, "smooth needs quantized weights"),
            ("ort", {"encoder": {"weights": "qint8", "smooth": 1.1}}, "smooth must be 'auto', null or a number from 0 to 1"),
            ("ort", {"encoder": {"weights": "qint8", "smooth": -0.1}}, "smooth must be 'auto', null or a number from 0 to 1"),
            ("ort", {"encoder": {"weights": "qint8", "smooth": "yes"}}, "components.encoder.smooth: 'yes' is not one of 'auto'"),
            ("ort", {"encoder": {"weights": "qint8", "smooth": True}}, "components.encoder.smooth: expected float, got bool"),
            ("ort", {"decoder": {"weights": "quint8", "block_size": 32}}, "block_size needs qint8 or qint4 weights"),
            ("ort", {"decoder": {"block_size": 32}}, "block_size needs qint8 or qint4 weights"),
            ("ort", {"decoder": {"weights": "qint8", "block_size": 8}}, "block_size must be a power of two, at least 16"),
            ("ort", {"decoder": {"weights": "qint4", "block_size": 48}}, "block_size must be a power of two, at least 16"),
            ("ort", {"decoder": {"weights": "qint4", "block_size": 0}}, "block_size must be a power of two, at least 16"),
            (
                "ort",
                {"decoder": {"weights": "qint8", "block_size": 32, "per_channel": True}},
                "block_size and per_channel exclude",
            ),
            ("ort", {"decoder": {"weights": "qint4"}}, "qint4 needs block_size"),
            ("torch", {"decoder": {"weights": "qint4", "block_size": 32}}, "only full-range qint8 weights per channel"),
            ("torch", {"encoder": {"weights": "quint8", "per_channel": True}}, "only full-range qint8 weights per channel"),
            ("torch", {"decoder": {"weights": "qint8", "per_channel": True, "reduce_range": True}}, "full-range qint8"),
            ("torch", {"encoder": {"weights": "qint8"}}, "the torch runtime quantizes per channel only"),
            ("ort", {"encoder": {"weights": "fp16"}}, "fp16 is for all components or none"),
            ("ort", {"*": {"weights": "fp16"}, "decoder": {}}, "fp16 is for all components or none"),
        ],
    )
    def test_combinations_that_no_exporter_supports_are_refused(self, tmp_path, runtime, components, problem):
        file = tmp_path / "mine.json"
        recipe = {"name": "mine", "why": "Why not.", "drift_limit_nat": 0.1, "runtime": runtime, "components": components}
        file.write_text(json.dumps(recipe))
        with pytest.raises(RecipeError) as caught:
            find_recipe(str(file))
        assert problem in str(caught.value)

    def test_a_quantized_recipe_needs_a_limit(self):
        with pytest.raises(ValueError, match="needs drift_limit_nat"):
            Recipe(name="m", runtime="ort", why="w", components={"encoder": Component(weights="qint8")})


def test_all_leaves_out_layouts_that_the_task_does_not_have_and_what_is_made_by_name():
    every = find_recipes(["all"], cuda=False)
    names = [recipe.name for recipe in for_task(every, ["all"], {"split"}, {"pytorch-int8"})]
    assert names == [recipe.name for recipe in every if recipe.name not in ("onnx-int8-single", "pytorch-int8")]
    named = find_recipes(["onnx-int8-single"], cuda=False)
    assert for_task(named, ["onnx-int8-single"], {"split"}, {"onnx-int8-single"}) == named  # refused later, by name
