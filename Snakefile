"""The whole benchmark: archives > manifest > frames > backbone > sweep > train > tables > report.

- A config is complete: demo.yaml is loaded only when no --configfile is given, so that nothing is merged into another.
- It is checked here, once. Jobs read the checked copy in the results folder, so that neither an edit nor --config can
  reach half of a run. That copy is no input of a rule: `params` hold the slice of the config that decides a job.
- Nothing but ssp.config and its neighbours is imported: this parses wherever snakemake is installed, without torch.
"""

import os
import sys

import yaml
from snakemake.settings.types import DeploymentMethod

from ssp.config import parse_config, read_yaml, slice_lines
from ssp.errors import SSPError
from ssp.records.explained import METHOD as EXPLAINED_METHOD
from ssp.records.explained import explained_datasets
from ssp.files import write_text
from ssp.paths import Paths
from ssp.scan.build import is_built
from ssp.scan.build import main as build_scan
from ssp.jobs.summary import print_summary

if not workflow.overwrite_configfiles:

    configfile: os.path.join(workflow.basedir, "config", "demo.yaml")


origin = ", ".join(os.path.relpath(file) for file in workflow.configfiles)
if workflow.config_settings.config:
    origin += " with --config"
try:
    for file in workflow.configfiles:
        read_yaml(os.path.relpath(file))  # Snakemake's reader keeps the last of two equal keys and says nothing
    cfg = parse_config(config, origin)
except SSPError as error:
    sys.exit(f"Error: {error}")
paths = Paths.of(cfg)


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/backbone.smk"
include: "workflow/rules/tune.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        TABLES,
        FIGURES,
        paths.report,
    localrule: True


onstart:
    write_text(paths.config, yaml.safe_dump(cfg.model_dump(mode="json"), sort_keys=False, allow_unicode=True))
    if SCAN.exists() and not is_built():
        build_scan()


onsuccess:
    print_summary(cfg)
