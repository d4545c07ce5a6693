"""What a person sees and types on a terminal: pure parts, and a thin shell around."""
