"""What engines answer, in processes of their own: see `engines.run_engines`.

python -m tests.sparse_backend.engine_process JOB     does this job
python -m tests.sparse_backend.engine_process         does a job a line, each in a process forked from this one, where
                                                      vLLM is imported: that takes longer than most jobs
"""

from __future__ import annotations

import json
import os
import sys
import traceback
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


def say_answers(job: dict[str, Any]) -> None:
    print("RESULT " + json.dumps(answers(job)), flush=True)


def as_a_new_process(job: dict[str, Any]) -> None:
    """Does the job with its environment, and leaves all that is said, answers or a traceback, in its file."""
    output = os.open(job["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.environ.update(job["environment"])
    sys.path[:0] = job["environment"]["PYTHONPATH"].split(os.pathsep)
    try:
        say_answers(job)
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()


def main() -> None:
    if len(sys.argv) > 1:
        say_answers(json.loads(sys.argv[1]))
        return
    # For the processes that are forked from here: they find both imported.
    import vllm.entrypoints.llm  # noqa: F401

    import sparse_backend.plugin  # noqa: F401

    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            as_a_new_process(json.loads(line))
            os._exit(0)  # an engine in its own process leaves nothing behind
        os.waitpid(child, 0)
        print("done", flush=True)


if __name__ == "__main__":
    main()
