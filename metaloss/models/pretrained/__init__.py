"""Networks of other libraries, perhaps with weights from a file."""
