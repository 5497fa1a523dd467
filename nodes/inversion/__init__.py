"""A picture fitted, encoded, brought to noise, and kept."""
