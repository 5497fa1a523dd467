"""Pictures of subjects: the wire, Add Reference, its preview, and the pictures as a model will see them."""
