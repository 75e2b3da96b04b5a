"""What an engine says of itself on vLLM's own /metrics."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

pytest.importorskip("vllm")

from kinetics_serve.engine.info import read_info
from sparse_backend import engine_info
from sparse_backend.engine_info import EngineInfo, merged, ranges
from tests.e2e.conftest import free_port
from tests.sparse_backend.engines import gemma, save

FACTS: dict[str, Any] = {
    "kv_budget": 256, "min_kv_budget": 112, "min_context": 0, "selector": "low_rank", "page_size": 16,
    "summary_bytes": 190.5, "sparse": [0, 2, 1, 5], "tensor_parallel": 1,
    "dense": {"sliding window": [3, 4]}, "kv_cache_dtype": "bfloat16", "device": "cpu",
}  # fmt: skip


def test_layers_are_ranges() -> None:
    assert ranges([5, 0, 2, 1, 7, 8]) == "0-2,5,7-8"
    assert ranges([]) == ""


def test_pipeline_stages_say_it_together() -> None:
    later = {**FACTS, "sparse": [6], "dense": {"sliding window": [7], "ALiBi": [8]}, "summary_bytes": 200}
    labels = merged([FACTS, later])
    assert labels["sparse_layers"] == "0-2,5-6"
    assert labels["dense_layers"] == "sliding window: 3-4,7; ALiBi: 8"
    assert labels["summary_bytes"] == "200"


def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, additional_config: dict[str, Any]) -> Any:
    monkeypatch.setattr(engine_info, "envs", SimpleNamespace(VLLM_RPC_BASE_PATH=str(tmp_path)))
    parallel = SimpleNamespace(pipeline_parallel_size=1)
    return SimpleNamespace(
        additional_config=additional_config, instance_id="a1", parallel_config=parallel, speculative_config=None
    )


def test_an_engine_that_left_no_note_says_nothing_and_a_warning_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine_info, "gauge", lambda: pytest.fail("there is nothing to say"))
    EngineInfo(config(tmp_path, monkeypatch, {}), [0]).log_engine_initialized()
    assert not caplog.records
    drafting = config(tmp_path, monkeypatch, {"sparse_attention": {"kv_budget": 256}})
    drafting.speculative_config = object()
    EngineInfo(drafting, [0]).log_engine_initialized()
    assert "steps that check drafts are dense" in caplog.text
    caplog.clear()
    asked = config(tmp_path, monkeypatch, {"sparse_attention": {"kv_budget": 256}})
    EngineInfo(asked, [0]).log_engine_initialized()
    assert "billed as dense" in caplog.text
    engine_info.publish(asked, 0, {**FACTS, "sparse": []})
    EngineInfo(asked, [0]).log_engine_initialized()


@pytest.mark.e2e
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
@pytest.mark.parametrize("multiprocess", [False, True], ids=["one process", "as with several API servers"])
def test_a_server_says_what_it_does(multiprocess: bool, tmp_path: Path) -> None:
    model = save(gemma, tmp_path)
    port = free_port()
    options = ["--port", str(port), "--skip-tokenizer-init", "--enforce-eager", "--max-model-len", "512"]
    options += ["--max-num-seqs", "4", "--dtype", "bfloat16"]
    options += ["--additional-config", json.dumps({"sparse_attention": {"kv_budget": 256}})]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1"}
    if multiprocess:
        (tmp_path / "metrics").mkdir()
        environment["PROMETHEUS_MULTIPROC_DIR"] = str(tmp_path / "metrics")
    with subprocess.Popen(
        [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), *options],
        env=environment,
    ) as server:
        try:
            text = metrics(f"http://127.0.0.1:{port}/metrics", server)
        finally:
            end(server)
    samples = {s.name: s.labels for family in text_string_to_metric_families(text) for s in family.samples}
    said = samples["kinetics_sparse_attention_info"]
    assert said["kv_budget"] == "256"
    assert (said["min_kv_budget"], said["min_context"], said["tensor_parallel"]) == ("112", "0", "1")
    assert said["selector"] == "low_rank"
    assert said["sparse_layers"] == "1"
    assert said["dense_layers"] == "sliding window: 0,2"
    assert said["kv_cache_dtype"] == "bfloat16"
    assert said["device"] == "cpu"
    assert float(said["summary_bytes"]) > 0
    # What vLLM says itself, and a front-end needs too.
    cache = samples["vllm:cache_config_info"]
    info = read_info(text)
    assert info.sparse is not None
    assert (info.sparse.kv_budget, info.sparse.layers, info.kv_cache_dtype) == (256, 1, "bfloat16")
    assert info.sparse.summary_bytes == float(said["summary_bytes"])
    assert (info.kv_block, info.device, info.tensor_parallel) == (128, "cpu", 1)
    assert (cache["block_size"], cache["cache_dtype"], cache["enable_prefix_caching"]) == ("128", "auto", "True")


def end(server: subprocess.Popen[bytes]) -> None:
    """vLLM may lose a signal that comes just when it begins to serve."""
    for _ in range(5):
        server.terminate()
        with suppress(subprocess.TimeoutExpired):
            server.wait(30)
            return
    server.kill()


def metrics(url: str, server: subprocess.Popen[bytes]) -> str:
    """The metrics of a server, once it is up."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        assert server.poll() is None, "the server ended"
        try:
            return httpx.get(url).raise_for_status().text
        except httpx.HTTPError:
            time.sleep(0.5)
    raise TimeoutError(f"{url} did not answer")
