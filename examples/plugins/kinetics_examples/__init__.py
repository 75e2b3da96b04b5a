"""Parts of one's own for Kinetics Serve, each found by its entry point in pyproject.toml."""
