"""Helpers of the tests: real servers, scripted trainers, tiny models, pasts, probes."""
