"""Caption metrics: BLEU, CIDEr-D, ROUGE-L."""
