"""The user's code in a learner, followed from a text to its answer without being run."""
