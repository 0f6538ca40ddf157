"""The target that needs no AWS account and no Docker: real server processes on this machine."""
