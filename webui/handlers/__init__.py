"""What the page's events do: they ask the portal with the caller's own cookie and keep nothing."""
