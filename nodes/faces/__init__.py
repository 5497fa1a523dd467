"""Faces in pictures: the networks that find and recognise them, alignment, keypoint pictures, references of a group."""
