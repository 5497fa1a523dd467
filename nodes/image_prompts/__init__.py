"""Image tokens at a cross-attention: MIP-Adapter, its words and its maps; FaceID; InstantID with its ControlNet;
StoryMaker.
"""
