"""The settings of a server: from the command line, the environment, `.env` and a file."""
