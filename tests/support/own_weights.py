"""Concepts that need a forward of their own."""

from support.concepts import strip, with_lora
from support.models import execute
from support.references import prompt

from pack.nodes.concept_conductor.concepts_node import AddConcept


def one_concept(model, file):
    """A chain of one concept on the left half."""
    inputs = {"positive": prompt(model, 300), "mask": strip(0, 2)}
    return execute(AddConcept, model=with_lora(model, file, 1.0), **inputs)[0]
