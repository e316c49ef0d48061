"""Tuning methods: the one interface, State Space Prompting behind it, and how methods are found, built and counted."""
