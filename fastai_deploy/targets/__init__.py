"""Where an artifact is served: this machine, or AWS."""
