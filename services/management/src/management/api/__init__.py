"""The REST API, one module for each thing it is about."""
