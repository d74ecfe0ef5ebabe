"""An archive of ECGs that can be searched in words: an index of embeddings, and what is asked of it."""
