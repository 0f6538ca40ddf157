"""The text side of a learner: its tokenizer, rebuilt, and the rules around it."""
