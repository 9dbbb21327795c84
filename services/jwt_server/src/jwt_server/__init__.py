"""Key server of the platform: JWKS, key rotation, demo tokens."""
