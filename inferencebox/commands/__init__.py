"""The commands of ``ibox``, one module each. A module has ``register(app)``; ``inferencebox.cli`` calls it."""
