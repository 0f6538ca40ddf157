"""fdeploy beside what else serves a text classifier, in one run on one machine."""
