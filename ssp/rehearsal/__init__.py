"""A stand-in of a config, run from archives to report before the config itself is.

- `derive` makes the stand-in's config, `run` runs the workflow on it, `broken` says what went wrong.
"""
