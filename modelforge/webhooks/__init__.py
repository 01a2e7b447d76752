"""Tells addresses of ends of jobs: signed, tried again, and each by itself."""
