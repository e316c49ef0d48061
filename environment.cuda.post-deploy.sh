#!/usr/bin/env bash
# Compiles the selective scan of mamba-ssm, and nothing else of it, against the torch of environment.cuda.yml. By itself
# that package compiles for up to nine architectures and in C++17, which torch's headers refuse, and it imports much more.
# MAX_JOBS limits memory; TORCH_CUDA_ARCH_LIST names other GPUs.
set -euo pipefail

export CUDA_HOME="${CUDA_HOME:-${CONDA_PREFIX:?run this inside the environment}}"
export MAX_JOBS="${MAX_JOBS:-4}"
export TORCH_CUDA_ARCH_LIST="${TORCH_CUDA_ARCH_LIST:-8.0;9.0;10.0}"
version=2.3.2.post1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

MAMBA_SKIP_CUDA_BUILD=TRUE pip download --quiet --no-deps --no-build-isolation --no-binary :all: -d "$work" "mamba-ssm==$version"
tar -xzf "$work"/mamba_ssm-*.tar.gz -C "$work" --strip-components 1 --wildcards '*/csrc/selective_scan/*' '*/LICENSE'
cat > "$work/setup.py" <<END
from glob import glob
from setuptools import setup
from torch.utils.cpp_extension import BuildExtension, CUDAExtension

operators = [f"-U__CUDA_NO_{kind}__" for kind in (
    "HALF_OPERATORS", "HALF_CONVERSIONS", "BFLOAT16_OPERATORS", "BFLOAT16_CONVERSIONS", "BFLOAT162_OPERATORS",
)]
options = ["-O3", "--use_fast_math", "--expt-relaxed-constexpr", "--expt-extended-lambda", *operators]
scan = CUDAExtension(
    "selective_scan_cuda",
    sorted(glob("csrc/selective_scan/*.cpp") + glob("csrc/selective_scan/*.cu")),
    extra_compile_args={"cxx": ["-O3"], "nvcc": options},
)
setup(name="selective-scan-cuda", version="$version", packages=[], ext_modules=[scan], cmdclass={"build_ext": BuildExtension})
END
pip install --no-deps --no-build-isolation "$work"
cd / && python -c "import torch, selective_scan_cuda"
