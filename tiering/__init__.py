"""What touches both tiers: reads that fall through, the flush, rehydration, eviction, retention, and the daemon."""
