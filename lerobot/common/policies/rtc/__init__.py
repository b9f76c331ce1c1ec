"""Real-time chunking: a new chunk continues the one that is being played."""
