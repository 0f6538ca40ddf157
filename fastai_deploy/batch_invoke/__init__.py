"""Many texts through one door: in chunks, several at once, kept as they are answered."""
