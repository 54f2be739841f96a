"""The `jelicit` command, and what all commands share: progress bars, and how they end."""
