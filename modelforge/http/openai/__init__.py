"""The surface that OpenAI's clients speak, under /v1: what is asked there becomes what is asked under /api."""
