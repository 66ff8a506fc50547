"""The table of model families that can be exported. `toolkit info` uses it without torch, so this module imports nothing."""

FAMILIES = {
    "BlipForConditionalGeneration": "exporters.families.blip_caption:BLIP_CAPTION",
    "BlipForQuestionAnswering": "exporters.families.blip_vqa:BLIP_VQA",
}
"""Architecture in config.json → "module:name" of its adapter, which is imported when a checkpoint needs it."""

MODEL_TYPES = {"blip": "BlipForConditionalGeneration"}
"""`model_type` in config.json → architecture to assume if `architectures` is missing, as in some published captioners."""
