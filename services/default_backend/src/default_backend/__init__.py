"""The backend for everything that no other route takes."""
