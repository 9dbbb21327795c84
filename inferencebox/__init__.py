"""Stand an AI inference platform up, prove its promises by behaviour, and tell it as a story."""
