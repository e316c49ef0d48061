"""What copies (tests/copies.py) have imported, and Snakemake's plugins, which it looks for as it reads its options."""

import smart_open  # noqa: F401  which Snakemake imports late
import torch._dynamo  # noqa: F401  which the first step of an optimizer imports
from snakemake.cli import get_argument_parser

import ssp.cli
import ssp.jobs.check
import ssp.jobs.costs
import ssp.jobs.seed
import ssp.jobs.sweep  # noqa: F401

get_argument_parser()
