"""Pack an artifact into one archive that another machine can verify: with golden captions, a model card and, on request, wheels."""
