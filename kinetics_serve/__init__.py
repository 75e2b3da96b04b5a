"""Test-time scaling under an eFLOP budget, in front of stock vLLM."""
