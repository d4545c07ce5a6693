"""A small language model of any text file, for measurements on ordinary text."""
