"""Training-free sparse attention inside stock vLLM."""
