"""What an evaluation found, as page, Markdown, JSON, CSV and Parquet."""

__all__ = ["evaluation_page", "export", "page", "published", "sections", "similarity_files", "six_sets", "values"]
