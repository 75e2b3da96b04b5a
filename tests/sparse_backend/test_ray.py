"""Workers that Ray has placed: see `ray_executor` for what vLLM's CPU platform lacks."""

import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("vllm")

from tests.sparse_backend.engines import close, run_engines, sparse

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler"),
    pytest.mark.skipif(find_spec("ray") is None, reason="no ray here: pip install ray"),
]

EXECUTOR = {"distributed_executor_backend": "tests.sparse_backend.ray_executor.Executor", "tensor_parallel_size": 2}


def test_workers_on_ray_are_all_sparse_and_follow_the_budgets_of_requests(tmp_path: Path) -> None:
    """Each of the two has a part of the heads: were one of them dense, the results would be others."""
    runs = {"long": {"prompts": [(1500, 3)]}, "mixed": {"prompts": [(1500, 3), (1100, 9)], "budgets": [0, 512]}}
    results = run_engines(tmp_path, {"one": sparse(kv_budget=256)}, runs)
    with tempfile.TemporaryDirectory(prefix="ray-") as short:  # the names of sockets may not be long
        ray = {**sparse(kv_budget=256), **EXECUTOR}
        results |= run_engines(
            tmp_path, {"ray": ray}, runs, apart=True, RAY_TMPDIR=short, VLLM_ENABLE_V1_MULTIPROCESSING="0"
        )
    assert close(results["ray/long"], results["one/long"])
    assert close(results["ray/mixed"], results["one/mixed"])
    assert not close(results["ray/long"], results["ray/mixed"][:1])
