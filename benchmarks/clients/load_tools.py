"""Load tools, as processes: each measures a few requests, one after another."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.clients.figures import ANSWER_TOKENS, KINETICS, REQUESTS, Figures
from benchmarks.fake_upstream import MODEL

TIMEOUT_S = 240

VLLM_BENCH = """
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""
"""`vllm bench serve`, without the command `vllm`, which asks for a distribution of that name."""


class Missing(Exception):
    """A tool that is not installed."""


class Failed(Exception):
    """A tool that ended without a result."""


def vllm_bench(url: str, budget: bool, tokenizer: Path, tools: Path) -> Figures:
    if importlib.util.find_spec("vllm") is None:
        raise Missing("vllm")
    result = tokenizer / f"vllm-{budget}.json"
    command = [sys.executable, "-c", VLLM_BENCH, "--backend", "openai-chat", "--base-url", url]
    command += ["--endpoint", "/v1/chat/completions", "--model", MODEL, "--tokenizer", str(tokenizer)]
    command += ["--dataset-name", "random", "--random-input-len", "10", "--random-output-len", str(ANSWER_TOKENS)]
    command += ["--num-prompts", str(REQUESTS), "--max-concurrency", "1", "--temperature", "0.7", "--disable-tqdm"]
    command += ["--save-result", "--result-dir", str(result.parent), "--result-filename", result.name]
    if budget:
        command += ["--extra-body", json.dumps({"kinetics": KINETICS})]
    _run(command)
    found = json.loads(result.read_text())
    if found["completed"] != REQUESTS:
        raise Failed(f"{found['completed']} of {REQUESTS} requests completed")
    return Figures(found["mean_ttft_ms"], found["mean_tpot_ms"], found["total_output_tokens"] / REQUESTS)


def guidellm(url: str, budget: bool, tokenizer: Path, tools: Path) -> Figures:
    """Its synthetic data come with ignore_eos."""
    backend: dict[str, Any] = {"kind": "openai_http", "target": url, "model": MODEL}
    if budget:
        backend["extras"] = {"body": {"kinetics": KINETICS}}
    result = tokenizer / f"guidellm-{budget}.json"
    command = [_tool(tools, "guidellm"), "run", "--backend", json.dumps(backend), "--profile", "kind=synchronous"]
    command += ["--constraint", f"kind=max_requests,count={REQUESTS}"]
    command += ["--tokenizer", f"kind=huggingface_auto,model={tokenizer}"]
    command += ["--data", f"kind=synthetic_text,prompt_tokens=10,output_tokens={ANSWER_TOKENS}"]
    _run([*command, "--output", f"kind=json,path={result}", "--disable-console"])
    metrics = json.loads(result.read_text())["benchmarks"][0]["metrics"]
    mean = {name: metrics[name]["successful"]["mean"] for name in ("output_token_count", "time_to_first_token_ms")}
    between = metrics["inter_token_latency_ms"]["successful"]["mean"]
    return Figures(mean["time_to_first_token_ms"], between, mean["output_token_count"])


def aiperf(url: str, budget: bool, tokenizer: Path, tools: Path) -> Figures:
    folder = tokenizer / f"aiperf-{budget}"
    command = [_tool(tools, "aiperf"), "profile", "--model", MODEL, "--url", url, "--endpoint-type", "chat"]
    command += ["--streaming", "--tokenizer", str(tokenizer), "--use-server-token-count", "--concurrency", "1"]
    command += ["--request-count", str(REQUESTS), "--synthetic-input-tokens-mean", "10"]
    command += ["--output-tokens-mean", str(ANSWER_TOKENS), "--artifact-dir", str(folder), "--ui", "none"]
    if budget:
        command += ["--extra-inputs", json.dumps({"kinetics": KINETICS})]
    _run(command, HF_HUB_OFFLINE="")  # with it, it takes a folder for the name of a repository
    found = json.loads(next(folder.rglob("profile_export_aiperf.json")).read_text())
    names = ("time_to_first_token", "inter_token_latency", "output_sequence_length")
    return Figures(*[found[name]["avg"] if name in found else None for name in names])


def _tool(tools: Path, name: str) -> str:
    found = shutil.which(name, path=str(tools / "bin"))
    if found is None:
        raise Missing(f"{name}: not in {tools}/bin")
    return found


def _run(command: list[str], **variables: str) -> None:
    """Offline: a load test fetches nothing."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"} | variables
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise Failed(f"no end after {TIMEOUT_S} s") from None
    if done.returncode:
        raise Failed((done.stderr or done.stdout).strip()[-300:])


LOAD_TOOLS = {"vllm bench serve": vllm_bench, "guidellm": guidellm, "aiperf": aiperf}
