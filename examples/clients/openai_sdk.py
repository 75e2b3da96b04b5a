"""A vote with OpenAI's SDK, followed while it goes on: python openai_sdk.py [URL]"""

import sys

from openai import OpenAI

url = sys.argv[1] if len(sys.argv) > 1 else "http://localhost:8000"
client = OpenAI(base_url=f"{url}/v1", api_key="none")

chunks = client.chat.completions.create(
    model=client.models.list().data[0].id,
    messages=[{"role": "user", "content": "What is 7 times 8?"}],
    max_tokens=200,
    temperature=0.3,
    stream=True,
    extra_body={"kinetics": {"budget": {"samples": 16}, "answer": {"extractor": "number"}}},
)
for chunk in chunks:
    told = (chunk.model_extra or {}).get("kinetics", {})
    if "stop_reason" in told:  # the bill, on the last chunk
        print(f"\nanswer {told['answer']} ({told['stop_reason']}), {told['samples_started']} samples")
        print(f"spent {told['spent_eflops']:.4g} of {told['budget_eflops']:.4g} eFLOPs")
    elif told:
        print(f"{told['samples_finished']} samples have finished", file=sys.stderr)
    for choice in chunk.choices:
        print(choice.delta.content or "", end="")
