"""The vLLM servers behind us: their client and pool, the embedded one's supervisor, and the bundled model."""
