"""Where programs come from: one module per kind of source, all with the interface in ``base``."""
