"""The asynchronous twins: synchronous generators, each in a thread of its own, for asyncio."""
