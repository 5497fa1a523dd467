"""Existing pictures: subjects cut out, replaced by VisCtrl and put back; holes repainted by PILOT."""
