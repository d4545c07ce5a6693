"""Defences of hidden states, to be measured: none of them is part of what a device runs."""
