"""Tables of the controls: label, element id, range, default and the request field each one fills."""
