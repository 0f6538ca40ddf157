"""Judging a model: figures on labelled texts, their page, the model card, drift."""
