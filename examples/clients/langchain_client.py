"""A budget through LangChain: python langchain_client.py [URL [MODEL]]"""

import sys

from langchain_openai import ChatOpenAI

url, model = [*sys.argv[1:], *["http://localhost:8000", "SmolLM2-135M-Instruct"][len(sys.argv) - 1 :]]
chat = ChatOpenAI(
    base_url=f"{url}/v1",
    api_key="none",
    model=model,
    max_completion_tokens=200,
    temperature=0.3,
    extra_body={"kinetics": {"budget": {"samples": 16}, "answer": {"extractor": "number"}}},
)
answer = chat.invoke("What is 7 times 8?")
print(answer.text)
print(answer.usage_metadata)  # of the answer; the bill counts all samples
