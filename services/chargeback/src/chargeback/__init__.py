"""Who used how much of which model, and what it costs."""
