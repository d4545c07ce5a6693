"""Where shipped models come from: recipes that make them again."""
