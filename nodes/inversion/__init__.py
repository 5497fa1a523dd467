"""A picture fitted, encoded, inverted to noise, and kept; inversion with guidance, and the way back."""
