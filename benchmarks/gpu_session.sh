#!/bin/sh
# Proves and times the CUDA kernels on a machine with a GPU, torch and Triton: `benchmarks/gpu_session.sh --json FILE`.
# At most 8 minutes (--minutes); run again, it goes on where it ended. Options are those of benchmarks/attention_gpu.py.
set -eu
cd "$(dirname "$0")/.."
PYTHONUNBUFFERED=1 exec "${PYTHON:-python3}" -m benchmarks.attention_gpu "$@"
