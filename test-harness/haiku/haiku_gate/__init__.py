"""The release gate of the haiku: a poem by a real model, and a source tree that could not have held it."""
