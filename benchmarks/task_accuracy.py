"""Does sparse attention cost correct answers? Few-shot questions behind long prompts, dense and sparse, in one engine.

A prompt is a few thousand tokens of solved questions, drawn from a pool without the one asked, and the question. Every
question is answered twice, greedily, by the same vLLM engine: with dense attention, and with a KV budget of an eighth
of the prompt. Prints the accuracies, their difference with a 95 % interval (paired bootstrap), and writes JSON.

    python -m benchmarks.task_accuracy [MODEL_FOLDER] [--contexts 2048 4096 6144]
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.selection_quality import model_folder

CAPITALS = dict(
    line.split(": ")
    for line in """\
France: Paris|Japan: Tokyo|Italy: Rome|Egypt: Cairo|Russia: Moscow|Spain: Madrid|Germany: Berlin|China: Beijing
India: New Delhi|Greece: Athens|Portugal: Lisbon|Austria: Vienna|Poland: Warsaw|Hungary: Budapest|Norway: Oslo
Sweden: Stockholm|Finland: Helsinki|Denmark: Copenhagen|Ireland: Dublin|Belgium: Brussels|Romania: Bucharest
Bulgaria: Sofia|Serbia: Belgrade|Croatia: Zagreb|Ukraine: Kyiv|Turkey: Ankara|Iran: Tehran|Iraq: Baghdad
Syria: Damascus|Lebanon: Beirut|Israel: Jerusalem|Jordan: Amman|Pakistan: Islamabad|Nepal: Kathmandu
Thailand: Bangkok|Vietnam: Hanoi|Indonesia: Jakarta|Malaysia: Kuala Lumpur|Philippines: Manila|South Korea: Seoul
Mongolia: Ulaanbaatar|Australia: Canberra|New Zealand: Wellington|Canada: Ottawa|Mexico: Mexico City|Cuba: Havana
Brazil: Brasilia|Argentina: Buenos Aires|Chile: Santiago|Peru: Lima|Colombia: Bogota|Venezuela: Caracas
Ecuador: Quito|Uruguay: Montevideo|Kenya: Nairobi|Ethiopia: Addis Ababa|Nigeria: Abuja|Ghana: Accra
Senegal: Dakar|Morocco: Rabat|Algeria: Algiers|Tunisia: Tunis|Libya: Tripoli|Angola: Luanda|Uganda: Kampala
Rwanda: Kigali|Zimbabwe: Harare|Madagascar: Antananarivo|Netherlands: Amsterdam|Czech Republic: Prague""".replace(
        "|", "\n"
    ).splitlines()
)
TASKS = {
    "times tables": {f"What is {a} times {b}?": str(a * b) for a in range(2, 13) for b in range(2, 13)},
    "capitals": {f"What is the capital of {country}?": capital for country, capital in CAPITALS.items()},
}
ANSWER_TOKENS = 16
PHRASE = "The answer is "  # prefill is dense: with these words before it, the answer itself is always decoded
SHARE = 8  # the KV budget is this part of the prompt
RESAMPLES = 10_000


@dataclass(frozen=True)
class Question:
    task: str
    context: int
    prompt: list[int]
    answer: str


def questions(tokenizer: Any, task: str, context: int, count: int, seed: int) -> list[Question]:
    """`count` questions behind one prompt of about `context` tokens, so that its prefix is computed once."""
    chance = random.Random(seed)
    pool = TASKS[task]
    asked = chance.sample(sorted(pool), count)
    shots = [f"Q: {question}\nA: {PHRASE}{pool[question]}.\n\n" for question in sorted(pool) if question not in asked]
    tokens: list[int] = []
    while len(tokens) < context:
        chance.shuffle(shots)
        tokens += tokenizer("".join(shots))["input_ids"]
    tokens = tokens[-context:]
    return [
        Question(task, context, tokens + tokenizer(f"Q: {question}\nA:")["input_ids"], pool[question])
        for question in asked
    ]


def correct(text: str, answer: str) -> bool:
    return text.partition("\n")[0].strip(" .").casefold() == f"{PHRASE}{answer}".casefold()


def interval(differences: list[int]) -> tuple[float, float]:
    """95 % interval of a mean, by bootstrap."""
    chance, n = random.Random(0), len(differences)
    means = sorted(sum(chance.choices(differences, k=n)) / n for _ in range(RESAMPLES))
    return means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES)]


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    from vllm import LLM, SamplingParams

    llm = LLM(
        args.model,
        max_model_len=max(args.contexts) + 64,
        max_num_seqs=8,
        enforce_eager=True,
        enable_prefix_caching=True,
        additional_config={"sparse_attention": {"kv_budget": min(args.contexts) // SHARE}},
    )
    rows = []
    for task in TASKS:
        for context in args.contexts:
            asked = questions(llm.get_tokenizer(), task, context, args.questions, args.seed)
            right = {}
            for name, budget in (("dense", 0), ("sparse", context // SHARE)):
                params = SamplingParams(
                    temperature=0, max_tokens=ANSWER_TOKENS, stop=["\n"], extra_args={"kv_budget": budget}
                )
                llm.generate({"prompt_token_ids": asked[0].prompt}, params, use_tqdm=False)  # fills the prefix cache
                prompts: list[Any] = [{"prompt_token_ids": q.prompt} for q in asked]
                outputs = llm.generate(prompts, params, use_tqdm=False)
                right[name] = [correct(o.outputs[0].text, q.answer) for o, q in zip(outputs, asked, strict=True)]
            rows.append({"task": task, "context": context, "budget": context // SHARE, **right})
            print(f"{task:14} {context:6} " + "  ".join(f"{k} {sum(v)}/{len(v)}" for k, v in right.items()), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="folder of a Hugging Face model (default: the bundled one)")
    parser.add_argument("--contexts", type=int, nargs="+", default=[2048, 4096, 6144])
    parser.add_argument("--questions", type=int, default=36, help="of each task at each context")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/task_accuracy.json"))
    args = parser.parse_args()
    args.model = model_folder(args.model)
    rows = measure(args)
    pairs = [(d, s) for row in rows for d, s in zip(row["dense"], row["sparse"], strict=True)]
    low, high = interval([s - d for d, s in pairs])
    dense, sparse = (sum(pair[i] for pair in pairs) / len(pairs) for i in (0, 1))
    print(f"{len(pairs)} questions: dense {dense:.1%}, sparse {sparse:.1%}, ", end="")
    print(f"difference {100 * (sparse - dense):+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"model": args.model, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
