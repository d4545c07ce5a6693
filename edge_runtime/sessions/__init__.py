"""Sessions that a local server lends to its requests, each a thread of its own; needs no extra."""
