"""What a learner is, found out without loading it: anatomy, verdict, imports, labels."""
