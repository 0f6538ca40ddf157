"""The container image of fdeploy's own server, made without Docker: layers appended to a base."""
