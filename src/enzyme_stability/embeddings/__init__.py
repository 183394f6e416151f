"""Embeddings that were computed: kept between runs, and exchanged with other tools as files."""
