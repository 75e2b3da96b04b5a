"""vLLM attention backends, thin: the work is in `sparse_backend.kernels`."""
