"""Denoisers, as a server serves them: conditioning in, predicted noise out, step by step."""
