"""Load tests: how fast an endpoint or API answers, and how much load it takes."""
