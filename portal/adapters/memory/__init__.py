"""Adapters that do nothing by themselves: a test, or a script, says what happens and when."""
