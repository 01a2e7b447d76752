"""Sends what `openapi.json` allows and what it does not, and checks that the server does what it says."""
