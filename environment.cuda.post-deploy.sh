#!/usr/bin/env bash
# Builds the reference CUDA kernels against the torch of environment.cuda.yml (half an hour; MAX_JOBS limits memory).
# The same versions stand in pyproject.toml under the extra `cuda` (a test holds that).
set -euo pipefail

export CUDA_HOME="${CONDA_PREFIX:?run this inside the environment}"
export MAX_JOBS="${MAX_JOBS:-4}"
# The CUDA part of mamba-ssm is optional, and its selective scan is what is wanted here.
export MAMBA_KEEP_CUDA_BUILD=TRUE

pip install setuptools wheel packaging
pip install --no-build-isolation causal-conv1d==1.7.0 mamba-ssm==2.3.2.post1
python -c "from mamba_ssm.ops.selective_scan_interface import selective_scan_fn"
