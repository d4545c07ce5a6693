"""Real attacks on what crosses the wire, and what they find."""
