"""What this library keeps in Redis: the names of its keys and its Lua scripts.  No I/O."""
