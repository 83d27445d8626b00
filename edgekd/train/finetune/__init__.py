"""Fine-tuning of segmenters."""
