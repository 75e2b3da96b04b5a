"""What a process of engines does: see `engines.run_engines`."""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def answers(job: dict[str, Any]) -> dict[str, Any]:
    """Token ids and log probabilities of every sample, by engine and run: see `engines.run_engines`."""
    from vllm import LLM, SamplingParams, TokensPrompt

    def prompt(tokens: int, seed: int) -> TokensPrompt:
        return TokensPrompt(prompt_token_ids=[(i * i * 7 + i * seed) % 500 + 2 for i in range(tokens)])

    common: dict[str, Any] = {"skip_tokenizer_init": True, "enforce_eager": True, "seed": 0, "max_model_len": 2048}
    common |= {"max_num_seqs": 8, "dtype": "float32"}
    llms = {name: LLM(job["model"], **common | settings) for name, settings in job["engines"].items()}
    found: dict[str, Any] = {}
    for engine, llm in llms.items():
        for name, run in job["runs"].items():
            params = [
                SamplingParams(
                    temperature=run.get("temperature", 0),
                    n=run.get("n", 1),
                    seed=1,
                    max_tokens=12,
                    ignore_eos=True,
                    detokenize=False,
                    logprobs=1,
                    extra_args={"kv_budget": budget} if budget is not None else None,
                )
                for budget in run.get("budgets", [None] * len(run["prompts"]))
            ]
            outputs: Any = llm.generate([prompt(*p) for p in run["prompts"]], params, use_tqdm=False)
            found[f"{engine}/{name}"] = [
                [list(sample.token_ids), [next(iter(token.values())).logprob for token in sample.logprobs]]
                for output in outputs
                for sample in output.outputs
            ]
    if job["counted"]:
        from tests.sparse_backend.counting import counted

        found["counted"] = counted(llms["sparse"], *job["counted"])
    return found


def answer(job: dict[str, Any], environment: dict[str, str], said: str) -> None:
    """In a process that was forked where vLLM was imported, and is as if it were new, with this environment.

    said: a file for all that it says, the answers last.
    """
    output = os.open(said, os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.environ.update(environment)
    sys.path[:0] = environment["PYTHONPATH"].split(os.pathsep)
    print("RESULT " + json.dumps(answers(job)), flush=True)
