"""Typed models of the config file: they check it, resolve it, and cut it into the slices that jobs depend on.

Design choices
- Defaults live here and nowhere else. A config may say which one it `extends`; after reading, nothing remembers it.
- Unknown keys are errors; every error is one line that names the file and the key.
- A *slice* is the part of a config that decides the outcome of one kind of job. The Snakefile passes slices as rule
  `params` and the jobs hash them into their records, so an edit reruns exactly what it affects. What has its default is
  in no slice: a new key with a default makes no finished job stale.
- Light: no torch here, so that the Snakefile parses wherever snakemake does (which brings pydantic along).
"""

from __future__ import annotations

from ssp.config.benchmark import Config
from ssp.config.plugins import source_names
from ssp.config.reading import (
    EXTENDS,
    Origin,
    config_text,
    load_config,
    load_results_config,
    parse_config,
    read_yaml,
    refusal,
    resolved,
    yaml_text,
)
from ssp.config.rows import Point, Row
from ssp.config.sections.archives import Archive
from ssp.config.sections.backbone import Architecture, Backbone, Checkpoint, Pretrain
from ssp.config.sections.common import Fraction, Name, Precision, Quirk, Strict
from ssp.config.sections.compute import Compute, ComputePlan, Tracking
from ssp.config.sections.data import CarvedTest, Clips, Expected, Frames, Generate, Validation
from ssp.config.sections.dataset import Dataset
from ssp.config.sections.quirks import Quirks
from ssp.config.sections.rows import Ablation, AblationPoint, Method
from ssp.config.sections.search import Budget, Range, Rung, Start, Sweep
from ssp.config.sections.training import Augmentation, CoBatched, Hyperparameters, Recipe
from ssp.config.slices import deciding, flattened, slice_change, slice_hash, slice_lines
from ssp.config.words import data_title, search_words

__all__ = [
    "EXTENDS",
    "Ablation",
    "AblationPoint",
    "Architecture",
    "Archive",
    "Augmentation",
    "Backbone",
    "Budget",
    "CarvedTest",
    "Checkpoint",
    "Clips",
    "CoBatched",
    "Compute",
    "ComputePlan",
    "Config",
    "Dataset",
    "Expected",
    "Fraction",
    "Frames",
    "Generate",
    "Hyperparameters",
    "Method",
    "Name",
    "Origin",
    "Point",
    "Precision",
    "Pretrain",
    "Quirk",
    "Quirks",
    "Range",
    "Recipe",
    "Row",
    "Rung",
    "Start",
    "Strict",
    "Sweep",
    "Tracking",
    "Validation",
    "config_text",
    "data_title",
    "deciding",
    "flattened",
    "load_config",
    "load_results_config",
    "parse_config",
    "read_yaml",
    "refusal",
    "resolved",
    "search_words",
    "slice_change",
    "slice_hash",
    "slice_lines",
    "source_names",
    "yaml_text",
]
