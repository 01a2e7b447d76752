"""What runs in the isolated training and inference processes. Never imports modelforge."""
