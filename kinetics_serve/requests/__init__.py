"""What requests with a budget and without share."""
