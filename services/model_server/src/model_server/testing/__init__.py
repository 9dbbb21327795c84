"""What only a test build has: faults on request, records of what arrived, an echo. Production never imports this."""
