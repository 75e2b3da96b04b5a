"""The vLLM server that this program starts itself."""
