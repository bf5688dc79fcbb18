"""Synchronous servers: the asyncio core in a thread of its own, and a bridge to the threads of the application."""
