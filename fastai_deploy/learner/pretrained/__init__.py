"""Folders that ``save_pretrained`` wrote: read, and answered by transformers' own pipeline."""
