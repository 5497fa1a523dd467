"""IP-Adapter files of every kind: from the file to the image tokens of a picture."""
