"""From a fastai text learner to a verified, key-protected HTTPS API, and back to nothing."""

__version__ = "0.1.0"
