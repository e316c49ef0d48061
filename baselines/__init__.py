"""Tuning methods that State Space Prompting is compared with, one file a method."""
