"""Carries out what the log says must happen outside."""
