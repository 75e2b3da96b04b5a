"""Trying a model on a task: questions, trials through any vLLM server, grades, traces, a report."""
