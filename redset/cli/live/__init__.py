"""The live view of ``redset top``: a full-screen application of textual."""
