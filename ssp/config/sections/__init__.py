"""The sections of a config file, one module a subject. Defaults live here alone."""
