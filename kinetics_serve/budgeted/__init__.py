"""A request with a budget, from its options to its bill."""
