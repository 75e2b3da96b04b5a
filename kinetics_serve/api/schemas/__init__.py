"""What clients read about requests and answers."""
