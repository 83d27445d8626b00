"""Distillation of a teacher into a detector."""
