"""fdeploy compared with other ways to serve a text classifier, in one run on one machine."""
