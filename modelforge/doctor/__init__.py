"""What is wrong with a data directory and with this machine, and what to do about it; nothing is changed."""
