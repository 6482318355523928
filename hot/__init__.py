"""The hot tier: Redis. Keys, the bytes in them, calls as pure plans, and the two clients that run them."""
