"""Fine-tune a checkpoint for a recipe: quantization-aware training by distillation from its own FP32 logits."""
