"""What clients and load tools make of the server: each plain and with a budget."""
