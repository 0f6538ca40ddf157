"""Examine a learner without loading it: anatomy, verdict, imports, labels."""
