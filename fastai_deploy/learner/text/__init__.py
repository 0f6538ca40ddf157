"""A learner's text processing: its tokenizer, rebuilt, and the rules around it."""
