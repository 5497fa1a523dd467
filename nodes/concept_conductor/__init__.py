"""Concept Conductor: several trained concepts in one picture, each in its place."""
