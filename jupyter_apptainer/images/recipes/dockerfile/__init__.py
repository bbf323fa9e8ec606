"""Dockerfiles: read by BuildKit's own parser, and said again as a definition file."""
