"""How a fresh machine becomes a host to test and to draw in."""
