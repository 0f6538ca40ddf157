"""Classifies many texts: in chunks, with concurrent requests, saving answers as they arrive."""
