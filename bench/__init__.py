"""What split inference costs, measured: links, traffic, latency, and the `bench` command."""
