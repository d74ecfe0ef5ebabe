"""A report cleaned, translated, in statements; the frozen LM; its vectors."""

__all__ = ["embeddings", "language_model", "reports", "statements", "translate"]
