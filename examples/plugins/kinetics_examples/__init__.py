"""Parts of one's own for Kinetics Serve, one file each. The entry points in pyproject.toml announce them."""
