"""Kills servers and trainers at random moments and system calls, and checks every promise."""
