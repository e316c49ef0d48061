"""A result put to use: a predictor from a folder of results or from an export, and how an export is made."""
