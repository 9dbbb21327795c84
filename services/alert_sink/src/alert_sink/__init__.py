"""Receives alert notifications as Slack and a mail server would, and says what arrived."""
