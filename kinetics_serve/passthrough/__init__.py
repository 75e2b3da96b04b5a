"""A request without a budget: vLLM's own answer, metered where there is a tenant."""
