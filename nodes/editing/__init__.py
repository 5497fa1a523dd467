"""Editing pictures that exist: subjects cut out and put back, or put in another one's place; holes painted anew."""
