"""Recorded samples, and what a policy would have made of them."""
