"""The table of model families that can be exported. `toolkit info` uses it without torch, so this module imports nothing."""

FAMILIES = {
    "BlipForConditionalGeneration": "exporters.families.blip_caption:BLIP_CAPTION",
    "BlipForQuestionAnswering": "exporters.families.blip_vqa:BLIP_VQA",
    "BlipForImageTextRetrieval": "exporters.families.blip_matching.family:BLIP_MATCHING",
}
"""Architecture in config.json → "module:name" of its adapter, which is imported when a checkpoint needs it."""

MODEL_TYPES = {"blip": "BlipForConditionalGeneration"}
"""`model_type` in config.json → architecture to assume if `architectures` is missing, as in some published captioners."""

TASKS = {"BlipForConditionalGeneration": "caption", "BlipForQuestionAnswering": "vqa", "BlipForImageTextRetrieval": "matching"}
"""Architecture → task of its artifacts, for use without its adapter."""

OWN_PARTS = {
    "caption": frozenset({"text_decoder."}),
    "vqa": frozenset({"text_encoder.", "text_decoder."}),
    "matching": frozenset({"text_encoder.", "itm_head."}),
}
"""Task → starts of names that mark checkpoints of other tasks (`exporters.checkpoint.refusals.MARKS`) and are this one's own."""

BASELINES = {
    "caption": "exporters.families.blip_reference:HfCaptioner",
    "vqa": "exporters.families.blip_reference:HfAnswerer",
    "matching": "exporters.families.blip_matching.reference:HfMatcher",
}
"""Task → "module:class" of transformers' model, the baseline of benchmarks. Without its adapter, which imports what exports need."""
