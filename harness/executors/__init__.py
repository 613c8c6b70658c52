"""How runs are spread over processes and machines."""
