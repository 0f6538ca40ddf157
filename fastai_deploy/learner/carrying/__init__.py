"""Learners that are served as they are: the pickle goes along and is run, with the user's leave."""
