"""Stages of benchmarks/gpu.py, by what they measure."""
