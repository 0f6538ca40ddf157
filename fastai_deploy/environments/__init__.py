"""Python environments for learners that are served as they are: pinned, in the right Python."""
