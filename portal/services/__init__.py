"""What the portal does, as functions and small classes that pages, APIs and commands call alike."""
