#!/usr/bin/env bash
# The best answer that 16 samples' worth can buy, and what it cost: examples/clients/curl.sh [URL]
set -euo pipefail
url=${1:-http://localhost:8000}

ask='{
  "messages": [{"role": "user", "content": "What is 7 times 8?"}],
  "max_tokens": 200,
  "temperature": 0.3
}'
kinetics='{"budget": {"samples": 16}, "answer": {"extractor": "number"}}'

post() {
  curl --silent --show-error --fail-with-body "$url$1" -H 'content-type: application/json' -d "${ask%\}}, \"kinetics\": $kinetics}"
  echo
}

post /v1/kinetics/plan     # what the budget would buy; nothing is generated
post /v1/chat/completions  # the answer, and the bill under "kinetics"
