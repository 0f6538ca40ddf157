"""The targets that serve an artifact: this machine or AWS."""
