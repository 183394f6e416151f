"""Training on Google Cloud: jobs of Vertex AI, and what a machine there runs."""
