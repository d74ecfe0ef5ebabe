"""All Ray Data pipelines: prepare, stream, LM actors, texts, embed, score."""

__all__ = ["embed", "lm_actors", "prepare", "score", "stream", "texts"]
