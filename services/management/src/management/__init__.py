"""Publishes the models of an inference platform, by API and by browser."""
