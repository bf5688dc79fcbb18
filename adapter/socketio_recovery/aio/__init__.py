"""The asyncio shell around the rules: everything that waits for Redis, for clients or for the application."""
