"""What an operator sees: metrics, the log, request ids, traces."""
